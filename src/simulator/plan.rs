//! What is decided about a call before it begins.

use std::time::Duration;

use rand::rngs::StdRng;

use super::dial::DialRequest;
use super::options::SimulatorOptions;
use super::outcomes::Outcome;

/// What will become of a call, drawn when it is accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) outcome: Outcome,
    pub(super) ring_delay: Duration,
    pub(super) ring_duration: Duration,
    pub(super) talk_duration: Duration,
    pub(super) detection: Duration,
}

impl Plan {
    pub(super) fn draw(
        options: &SimulatorOptions,
        request: &DialRequest,
        rng: &mut StdRng,
    ) -> Self {
        let drawn = options.outcome_mix.draw(rng);
        Self {
            outcome: options.outcome_for(request.to.digits()).unwrap_or(drawn),
            ring_delay: options.ring_delay_ms.draw(rng),
            ring_duration: options.ring_duration_ms.draw(rng),
            talk_duration: options.talk_duration_ms.draw(rng),
            detection: options.machine_detection_ms.draw(rng),
        }
    }
}
