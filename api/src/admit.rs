//! Checks a request before anything is proposed or read.
