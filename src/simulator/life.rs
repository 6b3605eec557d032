//! The life of one call, from its turn in the queue to its last webhook. One task each.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::calls::{Call, Command, Phase};
use super::delivery::{Reply, deliver};
use super::dial::{Callback, DialRequest, MachineDetection};
use super::exchange::Accepted;
use super::hangup::Hangup;
use super::outcomes::Outcome;
use super::plan::Plan;
use super::webhooks::{EventKind, Webhook};
use super::xml_check::{self, Step};

/// Documents that one call may ask for, so that a Redirect to itself does not turn for ever.
const MOST_DOCUMENTS: u32 = 50;

/// A document to ask for.
struct Errand {
    kind: EventKind,
    callback: Callback,
}

/// What breaks off whatever a call is doing.
enum Stop {
    End(Hangup),
    Fetch(Errand),
}

/// What is bound to happen at a time unless something comes before.
#[derive(Clone, Copy)]
enum Alarm {
    End(Hangup),
    MachineDetected(MachineDetection),
}

struct Life {
    shared: Arc<Shared>,
    uuid: Arc<str>,
    request: Arc<DialRequest>,
    plan: Plan,
    commands: mpsc::UnboundedReceiver<Command>,
    alarms: Vec<(Instant, Alarm)>,
    /// Webhooks that wait until the call's next one was sent.
    held: Vec<Webhook>,
}

/// Lives the life of an accepted call.
pub(super) async fn live(shared: Arc<Shared>, accepted: Accepted) {
    let Accepted {
        uuid,
        request,
        plan,
        commands,
        start_at,
        queued,
        ..
    } = accepted;
    let mut life = Life {
        shared,
        uuid,
        request,
        plan,
        commands,
        alarms: Vec::new(),
        held: Vec::new(),
    };
    let first = match life.until_document(start_at, queued).await {
        Continue(errand) => Stop::Fetch(errand),
        Break(stop) => stop,
    };
    let hangup = life.converse(first).await;
    life.finish(hangup);
}

impl Life {
    async fn until_document(
        &mut self,
        start_at: Instant,
        queued: bool,
    ) -> ControlFlow<Stop, Errand> {
        if queued {
            self.wait_until(start_at).await?;
            if self.shared.exchange().is_full() {
                return Break(Stop::End(Hangup::of(5030)));
            }
            self.advance(Phase::Initiated)?;
        }
        self.until_answer().await?;
        self.detect_machine().await?;
        Continue(Errand {
            kind: EventKind::Answer,
            callback: self.request.answer.clone(),
        })
    }

    /// From the start to the answer; breaks if the call ends before.
    async fn until_answer(&mut self) -> ControlFlow<Stop> {
        if self.shared.exchange().options.out_of_credit {
            return Break(Stop::End(Hangup::of(1010)));
        }
        self.wait_until(Instant::now() + self.plan.ring_delay)
            .await?;
        let outcome = self.plan.outcome;
        let unanswered = outcome.unanswered();
        if let Some(hangup) = unanswered.filter(|_| !outcome.rings()) {
            return Break(Stop::End(hangup));
        }
        self.advance(Phase::Ringing)?;
        let rings_since = Instant::now();
        if let Some(webhook) = self.webhook(EventKind::Ring) {
            if self
                .shared
                .exchange()
                .held(EventKind::Ring, unanswered.is_some())
            {
                self.held.push(webhook);
            } else {
                self.shared
                    .spawn(deliver(Arc::clone(&self.shared), webhook));
            }
        }
        self.alarms.push((
            rings_since + self.request.ring_timeout,
            Alarm::End(Hangup::of(6010)),
        ));
        if let Some(after) = self.request.hangup_on_ring {
            self.alarms
                .push((rings_since + after, Alarm::End(Hangup::of(6000))));
        }
        if outcome == Outcome::RingTimeout {
            self.undisturbed(std::future::pending::<()>()).await?;
        }
        self.wait_until(rings_since + self.plan.ring_duration)
            .await?;
        if let Some(hangup) = unanswered {
            return Break(Stop::End(hangup));
        }
        self.alarms.clear();
        self.advance(Phase::InProgress)?;
        self.alarms.push((
            Instant::now() + self.request.time_limit,
            Alarm::End(Hangup::of(6000)),
        ));
        Continue(())
    }

    /// Machine detection, if the caller asked for it: with a URL of its own it goes on beside the call, without one the
    /// answer document waits for the verdict.
    async fn detect_machine(&mut self) -> ControlFlow<Stop> {
        let Some(mode) = self.request.machine_detection else {
            return Continue(());
        };
        let is_machine = self.plan.outcome == Outcome::Machine;
        let verdict_at = Instant::now() + self.plan.detection;
        if self.request.machine.is_some() {
            if is_machine {
                self.alarms.push((verdict_at, Alarm::MachineDetected(mode)));
            }
            return Continue(());
        }
        self.wait_until(verdict_at).await?;
        if is_machine {
            self.meet_machine(mode)
        } else {
            Continue(())
        }
    }

    fn meet_machine(&mut self, mode: MachineDetection) -> ControlFlow<Stop> {
        self.shared.exchange().ledger.mark_machine(&self.uuid);
        if let Some(webhook) = self.webhook(EventKind::Machine) {
            self.shared
                .spawn(deliver(Arc::clone(&self.shared), webhook));
        }
        match mode {
            MachineDetection::Hangup => Break(Stop::End(Hangup::of(9100))),
            MachineDetection::Continue => Continue(()),
        }
    }

    /// Asks for documents and carries them out until the call ends.
    async fn converse(&mut self, first: Stop) -> Hangup {
        let mut next = first;
        for _ in 0..MOST_DOCUMENTS {
            next = match next {
                Stop::End(hangup) => return hangup,
                Stop::Fetch(errand) => match self.serve(&errand).await {
                    Continue(()) => Stop::End(Hangup::of(4010)),
                    Break(stop) => stop,
                },
            };
        }
        Hangup::of(8014)
    }

    /// Fetches a document and carries it out; continues past its end.
    async fn serve(&mut self, errand: &Errand) -> ControlFlow<Stop> {
        let steps = self.fetch(errand).await?;
        self.carry_out(steps).await
    }

    async fn fetch(&mut self, errand: &Errand) -> ControlFlow<Stop, Vec<Step>> {
        let is_answer = errand.kind == EventKind::Answer;
        let Some(webhook) = self.webhook_to(errand.kind, errand.callback.clone()) else {
            return Break(Stop::End(Hangup::of(0)));
        };
        if is_answer && self.shared.exchange().held(EventKind::Answer, true) {
            // The answer is to be told after the hangup, so the call ends before it has a document.
            self.held.push(webhook);
            self.wait_until(Instant::now() + self.plan.talk_duration)
                .await?;
            return Break(Stop::End(Hangup::of(4000)));
        }
        let mut reply = self.ask(webhook).await?;
        if reply.is_none()
            && is_answer
            && let Some(fallback) = self.webhook(EventKind::Fallback)
        {
            reply = self.ask(fallback).await?;
        }
        let (unreachable, invalid) = errand.kind.document_failures();
        let Some(reply) = reply else {
            return Break(Stop::End(Hangup::of(unreachable)));
        };
        match xml_check::read(reply.content_type.as_deref(), &reply.body) {
            Ok(steps) => Continue(steps),
            Err(reason) => {
                let now = self.shared.now();
                self.shared
                    .exchange()
                    .ledger
                    .remark(&self.uuid, reason, now);
                tracing::debug!(call.uuid = %self.uuid, reason, "answer document refused");
                Break(Stop::End(Hangup::of(invalid)))
            }
        }
    }

    /// Sends a webhook from a task of its own, so that the end of the call does not take it back, and waits for the answer.
    async fn ask(&mut self, webhook: Webhook) -> ControlFlow<Stop, Option<Reply>> {
        let delivery = self
            .shared
            .spawn(deliver(Arc::clone(&self.shared), webhook));
        let reply = self.undisturbed(delivery).await?;
        for held in self.held.drain(..) {
            self.shared.spawn(deliver(Arc::clone(&self.shared), held));
        }
        Continue(reply.ok().flatten().flatten())
    }

    async fn carry_out(&mut self, steps: Vec<Step>) -> ControlFlow<Stop> {
        let mut has_listened = false;
        for step in steps {
            match step {
                Step::Instant => {}
                Step::Wait(length) => self.wait_until(Instant::now() + length).await?,
                // However many messages there are, the callee listens for the talk duration.
                Step::Message if has_listened => {}
                Step::Message => {
                    self.wait_until(Instant::now() + self.plan.talk_duration)
                        .await?;
                    has_listened = true;
                }
                Step::Conversation => {
                    self.wait_until(Instant::now() + self.plan.talk_duration)
                        .await?;
                    return Break(Stop::End(Hangup::of(4000)));
                }
                Step::Hangup { code, after } => {
                    let hangup = Hangup::of(code).by("Answer XML");
                    if after.is_zero() {
                        return Break(Stop::End(hangup));
                    }
                    self.alarms
                        .push((Instant::now() + after, Alarm::End(hangup)));
                }
                Step::Redirect { url, method } => {
                    let callback = Callback { url, method };
                    return Break(Stop::Fetch(Errand {
                        kind: EventKind::Redirect,
                        callback,
                    }));
                }
            }
        }
        Continue(())
    }

    /// Ends the call, unless the API has done so already, and tells the caller.
    fn finish(mut self, hangup: Hangup) {
        let now = self.shared.now();
        self.shared.exchange().ledger.end(&self.uuid, hangup, now);
        let Some(webhook) = self
            .webhook(EventKind::Hangup)
            .filter(|_| self.tells_its_end())
        else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        let held = std::mem::take(&mut self.held);
        self.shared.spawn(async move {
            deliver(Arc::clone(&shared), webhook).await;
            for held in held {
                deliver(Arc::clone(&shared), held).await;
            }
        });
    }

    /// All calls do, but for those that were cancelled in the queue, where the options say so.
    fn tells_its_end(&self) -> bool {
        let exchange = self.shared.exchange();
        let in_queue =
            |call: &Call| call.started_at.is_none() && call.hangup != Some(Hangup::of(5030));
        exchange.options.hangup_webhook_for_queued
            || !exchange.ledger.call(&self.uuid).is_some_and(in_queue)
    }

    fn advance(&self, phase: Phase) -> ControlFlow<Stop> {
        let now = self.shared.now();
        match self
            .shared
            .exchange()
            .ledger
            .advance(&self.uuid, phase, now)
        {
            Some(_) => Continue(()),
            // The API has just ended the call; that hangup stands in the books already.
            None => Break(Stop::End(Hangup::of(1000))),
        }
    }

    fn webhook(&self, kind: EventKind) -> Option<Webhook> {
        let target = |call: &Call| Webhook::target(kind, call);
        let callback = self
            .shared
            .exchange()
            .ledger
            .call(&self.uuid)
            .and_then(target)?;
        self.webhook_to(kind, callback)
    }

    fn webhook_to(&self, kind: EventKind, callback: Callback) -> Option<Webhook> {
        let now = self.shared.now();
        let exchange = self.shared.exchange();
        let call = exchange.ledger.call(&self.uuid)?;
        Some(Webhook::new(kind, call, callback, &exchange.options, now))
    }

    async fn wait_until(&mut self, instant: Instant) -> ControlFlow<Stop> {
        self.undisturbed(sleep_until(instant)).await
    }

    /// Waits for `work`, unless the API or an alarm has something to say first.
    async fn undisturbed<T>(&mut self, work: impl Future<Output = T>) -> ControlFlow<Stop, T> {
        tokio::pin!(work);
        loop {
            let first = (0..self.alarms.len()).min_by_key(|&index| self.alarms[index].0);
            let alarm = alarm_rings(first.map(|index| (index, self.alarms[index].0)));
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => match command {
                    Command::Hangup(hangup) => return Break(Stop::End(hangup)),
                    Command::Transfer(callback) => {
                        return Break(Stop::Fetch(Errand { kind: EventKind::Transfer, callback }));
                    }
                },
                index = alarm => match self.alarms.swap_remove(index).1 {
                    Alarm::End(hangup) => return Break(Stop::End(hangup)),
                    Alarm::MachineDetected(mode) => self.meet_machine(mode)?,
                },
                done = &mut work => return Continue(done),
            }
        }
    }
}

/// Waits for an alarm and returns its index; without one, for ever.
async fn alarm_rings(alarm: Option<(usize, Instant)>) -> usize {
    match alarm {
        Some((index, at)) => {
            sleep_until(at).await;
            index
        }
        None => std::future::pending().await,
    }
}
