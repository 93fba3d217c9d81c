//! Which endpoint a request goes to, and which are spared.
