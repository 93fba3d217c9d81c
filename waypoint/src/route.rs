//! What is done with a request: pure decisions over compiled routes.
