//! tasker-core
