//! tasker-cli
