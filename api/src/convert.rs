//! Between wire types and the store's.
