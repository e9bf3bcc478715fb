//! Response headers.
