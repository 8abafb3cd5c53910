//! Peers that mean harm, over real sockets against a real listener. What is asserted is a bound: the attacked session
//! holds no more than its budget and ends with a reason or goes on, and an honest session beside it does not notice.
//! Nothing here asserts a time; the timeouts only turn a hang into a failure.

mod floods;
mod listener;
mod raw;
mod transport;
