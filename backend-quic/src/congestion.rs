//! Congestion control that does not hold back the last packet.
//!
//! quinn 0.11 sends the packet that ends a connection only when the congestion window has room, and after `close()`
//! nothing makes room any more, so that the peer of a busy sender would not hear of the end (quinn issue 2785, fixed on
//! its main branch). RFC 9002 section 7 does not ask for that: such a packet is not congestion controlled.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics, CubicConfig, NewRenoConfig};
use quinn_proto::RttEstimator;

use crate::options::Congestion;

/// Whether a connection is about to be ended, shared with its controllers (one for each path).
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(Arc<AtomicBool>);

impl Ending {
    /// From now on nothing but the last packet is sent.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Makes controllers that let the last packet pass.
    pub(crate) fn controllers(&self, congestion: Congestion) -> Arc<dyn ControllerFactory + Send + Sync> {
        Arc::new(Factory { ending: self.clone(), congestion })
    }
}

/// Far above what can be in flight; quinn does not pace a window this large either.
const UNBOUNDED: u64 = 1 << 48;

struct Factory {
    ending: Ending,
    congestion: Congestion,
}

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = match self.congestion {
            Congestion::Cubic => Arc::new(CubicConfig::default()).build(now, current_mtu),
            Congestion::NewReno => Arc::new(NewRenoConfig::default()).build(now, current_mtu),
            Congestion::Bbr => Arc::new(BbrConfig::default()).build(now, current_mtu),
        };
        Box::new(LastPacket { inner, ending: self.ending.clone() })
    }
}

struct LastPacket {
    inner: Box<dyn Controller>,
    ending: Ending,
}

impl Controller for LastPacket {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.ending.0.load(Ordering::Acquire) { UNBOUNDED } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), ending: self.ending.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
