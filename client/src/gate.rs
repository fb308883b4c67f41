//! Being paid over HTTP: the gate that stands before a web server and asks for payment.

pub mod proxy;
