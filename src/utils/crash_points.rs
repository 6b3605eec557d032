//! Points at which a test lets the process die or freeze, so that what a kill at exactly that step leaves behind can be
//! proved to be survived.
//!
//! Behind the cargo feature `crash-points`, which only tests have: without it a point is nothing at all. With it a point
//! does nothing either, unless the environment names it (`CRASH_POINTS`, read by `config`). tests/it/crash_points.rs finds
//! every point in the code and lets a process die at it.

/// Marks a step by its name, which no other point has.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(feature = "crash-points")]
        $crate::utils::crash_points::reach($name);
    };
}
pub(crate) use crash_point;

#[cfg(feature = "crash-points")]
pub use armed::{Step, arm, reach};

#[cfg(feature = "crash-points")]
mod armed {
    use std::io::Write;
    use std::str::FromStr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    /// Within this time a signal has stopped every thread; one that is stopped does not notice it passing.
    const UNTIL_STOPPED: Duration = Duration::from_millis(50);

    static ARMED: OnceLock<Vec<(Step, AtomicU32)>> = OnceLock::new();

    /// What is to happen at a point.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Step {
        point: String,
        /// At which pass, from 1.
        pass: u32,
        action: Action,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        Abort,
        Freeze,
    }

    /// `point/pass` to die there, `point/pass/freeze` to stop there as by SIGSTOP until somebody sends SIGCONT.
    impl FromStr for Step {
        type Err = &'static str;

        fn from_str(text: &str) -> Result<Self, Self::Err> {
            const FORM: &str = "must be point/pass or point/pass/freeze, separated by commas";
            let mut parts = text.split('/');
            let (Some(point), Some(pass)) = (parts.next(), parts.next()) else {
                return Err(FORM);
            };
            let action = match (parts.next(), parts.next()) {
                (None, None) => Action::Abort,
                (Some("freeze"), None) => Action::Freeze,
                _ => return Err(FORM),
            };
            match pass.parse() {
                Ok(pass) if pass > 0 && !point.is_empty() => Ok(Self {
                    point: point.to_owned(),
                    pass,
                    action,
                }),
                _ => Err(FORM),
            }
        }
    }

    /// Lets these steps happen to this process. Only the first order counts.
    pub fn arm(steps: Vec<Step>) {
        let steps = steps.into_iter().map(|step| (step, AtomicU32::new(0)));
        ARMED.get_or_init(|| steps.collect());
    }

    /// The process is at this point.
    pub fn reach(point: &'static str) {
        for (step, passes) in ARMED.get().into_iter().flatten() {
            if step.point == point && passes.fetch_add(1, Ordering::SeqCst) + 1 == step.pass {
                // Whoever waits for it reads it here; when it cannot be written the exit code still tells.
                writeln!(std::io::stderr(), "crash point {point}").ok();
                match step.action {
                    Action::Abort => std::process::abort(),
                    Action::Freeze => {
                        kill_process(getpid(), Signal::STOP).ok();
                        std::thread::sleep(UNTIL_STOPPED);
                    }
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_step_names_its_point_and_its_pass() {
            let step = |pass, action| {
                Ok(Step {
                    point: "dial.after_guard".to_owned(),
                    pass,
                    action,
                })
            };
            assert_eq!("dial.after_guard/3".parse(), step(3, Action::Abort));
            assert_eq!("dial.after_guard/1/freeze".parse(), step(1, Action::Freeze));
            for wrong in ["dial", "dial/0", "/1", "dial/1/melt", "dial/1/freeze/x"] {
                assert!(wrong.parse::<Step>().is_err(), "{wrong}");
            }
        }
    }
}
