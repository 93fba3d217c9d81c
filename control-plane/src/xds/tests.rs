//! Whatever happens, a client ends with the server's state; and when it is told.

mod convergence;
mod publishing;
