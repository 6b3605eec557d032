//! Child processes that never outlive this one, not even when it is killed with kill -9.
//!
//! A child runs under a small shell whose standard input is a pipe that only we hold. The kernel closes that pipe when we
//! die, however we die, and then the shell ends its child. The same pipe carries signals to the child, by name: the shell
//! waits for the child itself, so that the process id stays the child's own until the shell is gone, and no signal can ever
//! hit a stranger.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Where the shell finds its own tools when the environment is given.
const SHELL_PATH: &str = "/usr/bin:/bin";

/// Runs its arguments after the first as a child that writes to our standard error, tells the child's process id, and passes
/// on each signal that it reads. When standard input closes it ends the child: politely, after the time in its first argument
/// (in tenths of a second) by force.
const WATCHDOG: &str = r#"
left=$1
shift
exec 3<&0
"$@" </dev/null 3<&- >&2 &
child=$!
echo "$child"
{
    while read -r signal; do kill -"$signal" "$child"; done <&3
    if [ "$left" -gt 0 ]; then kill -TERM "$child"; fi
    while [ "$left" -gt 0 ] && kill -0 "$child"; do
        sleep 0.1
        left=$((left - 1))
    done
    kill -KILL "$child"
} >/dev/null 2>&1 &
guard=$!
exec 3<&-
wait "$child" 2>/dev/null
status=$?
kill "$guard" 2>/dev/null
exit "$status"
"#;

/// What to run.
#[derive(Debug, Clone)]
pub struct Program<'a> {
    /// The binary, or its name.
    pub path: &'a Path,
    /// What it is told.
    pub arguments: Vec<OsString>,
    /// Its whole environment; ours where there is none.
    pub environment: Option<&'a BTreeMap<String, String>>,
}

/// A signal for the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Stop politely.
    Terminate,
    /// Stop at once; the child hears nothing of it.
    Kill,
    /// Freeze.
    Freeze,
    /// Thaw.
    Thaw,
}

impl Signal {
    fn line(self) -> &'static [u8] {
        match self {
            Self::Terminate => b"TERM\n",
            Self::Kill => b"KILL\n",
            Self::Freeze => b"STOP\n",
            Self::Thaw => b"CONT\n",
        }
    }
}

/// A running child. Dropping it, or the death of this process, ends the child without waiting for it.
#[derive(Debug)]
pub struct Leashed {
    pid: u32,
    shell: Child,
    leash: ChildStdin,
}

impl Leashed {
    /// Runs `program` with both of its outputs in `log`. When the leash is dropped it is asked to stop and has `grace` for it;
    /// with none it is killed at once.
    ///
    /// # Errors
    /// When the shell cannot be started. A program that does not exist is one that ends at once, with exit code 127.
    pub async fn spawn(program: Program<'_>, log: File, grace: Duration) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", WATCHDOG, "watchdog"]);
        shell.arg((grace.as_millis() / 100).to_string());
        shell.arg(program.path).args(program.arguments);
        if let Some(environment) = program.environment {
            shell.env_clear().env("PATH", SHELL_PATH).envs(environment);
        }
        shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log);
        // In a group of its own, ctrl-c at the terminal does not take the child away from our own shutdown.
        shell.process_group(0);
        let mut shell = shell.spawn()?;
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        let leash = shell.stdin.take().ok_or_else(broken)?;
        let told = shell.stdout.take().ok_or_else(broken)?;
        let mut line = String::new();
        BufReader::new(told).read_line(&mut line).await?;
        let pid = line.trim().parse().map_err(|_| broken())?;
        Ok(Self { pid, shell, leash })
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends the child a signal.
    ///
    /// # Errors
    /// When the child has ended.
    pub async fn signal(&mut self, signal: Signal) -> io::Result<()> {
        self.leash.write_all(signal.line()).await?;
        self.leash.flush().await
    }

    /// Waits for the child's end; one that a signal ended has 128 and the signal's number as its exit code.
    ///
    /// # Errors
    /// When the shell cannot be waited for.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        // Tokio would close standard input, which is the leash, but it was taken out.
        self.shell.wait().await
    }

    /// Whether the child has ended.
    ///
    /// # Errors
    /// When the shell cannot be asked.
    pub fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.shell.try_wait()?.is_some())
    }

    /// Lets go: the child is ended as [`Leashed::spawn`] says, and its end is awaited.
    ///
    /// # Errors
    /// When the shell cannot be waited for.
    pub async fn end(mut self) -> io::Result<ExitStatus> {
        drop(self.leash);
        self.shell.wait().await
    }
}
