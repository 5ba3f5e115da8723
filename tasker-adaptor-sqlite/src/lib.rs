//! tasker-adaptor-sqlite
