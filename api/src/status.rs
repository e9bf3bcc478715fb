//! Every gRPC status that a client can see, in one place.
