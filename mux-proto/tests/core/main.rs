//! The core's rules, proved with two connections on a virtual link and a virtual clock, speaking qmux.
//!
//! Every byte on the link passes a monitor that knows docs/qmux.md and fails the test when either side breaks a rule of
//! its own. Random tests print their seed when they fail.

mod closing;
mod fairness;
mod flow;
mod growth;
mod lifecycle;
mod liveness;
mod malformed;
mod monitor;
mod opens;
mod pair;
mod random;
mod violations;
