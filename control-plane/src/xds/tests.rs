//! Whatever happens, a client ends with the server's state, or with its part of it; and when it is
//! told.

mod audience;
mod convergence;
mod credentials;
mod publishing;
