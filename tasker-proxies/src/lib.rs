//! tasker-proxies
