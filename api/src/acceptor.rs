//! Deals accepted sockets to the connection runtimes.
