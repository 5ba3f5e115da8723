//! tasker-adaptor-postgres
