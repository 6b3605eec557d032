//! The service as what it is in production: processes of the binary, which get signals, have an exit code, and write a log.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpSocket;
use tokio::process::{Child, ChildStdin, Command};

use super::app::{ADMIN_KEY, Api, PATIENCE, World, until};
use super::mongod::data_dir;

/// Runs its arguments after the first as a child with its outputs in the folder that is the first, tells the child's process
/// id, and kills the child when standard input closes: when the handle is dropped, and when the test is killed.
///
/// The shell waits for the child itself, so that the child's process id stays its own until the shell is gone.
const WATCHDOG: &str = r#"
folder=$1
shift
exec 3<&0
ulimit -c 0
"$@" </dev/null 3<&- >"$folder/stdout" 2>"$folder/stderr" &
child=$!
echo "$child"
{
    read -r _ <&3
    kill -KILL "$child"
} 2>/dev/null &
guard=$!
exec 3<&-
wait "$child" 2>/dev/null
status=$?
kill "$guard" 2>/dev/null
exit "$status"
"#;

/// A process of the binary. Dropping it, or the death of the test, kills it.
pub(crate) struct Process {
    pid: u32,
    folder: PathBuf,
    shell: Child,
    /// Never written to: the process lives as long as this end of the pipe is open.
    _leash: ChildStdin,
}

impl Process {
    /// Starts `ringmaster ARGUMENTS` with no more environment than `settings`.
    pub(crate) async fn start(arguments: &[&str], settings: &BTreeMap<String, String>) -> Self {
        let folder = data_dir();
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "watchdog"]).arg(&folder);
        command
            .arg(env!("CARGO_BIN_EXE_ringmaster"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let leash = shell.stdin.take().unwrap();
        let mut first_line = String::new();
        let mut told = BufReader::new(shell.stdout.take().unwrap());
        told.read_line(&mut first_line).await.unwrap();
        Self {
            pid: first_line.trim().parse().unwrap(),
            folder,
            shell,
            _leash: leash,
        }
    }

    /// Sends it a signal by name, such as `TERM`.
    pub(crate) async fn signal(&mut self, name: &str) {
        assert!(
            self.shell.try_wait().unwrap().is_none(),
            "the process has ended already: {}",
            self.output()
        );
        signal(self.pid, name).await;
    }

    /// Waits for its end: the exit code, or 128 and the number of the signal that ended it.
    pub(crate) async fn exit(&mut self) -> i32 {
        let ended = tokio::time::timeout(PATIENCE, self.shell.wait()).await;
        let status = ended.expect("the process does not end").unwrap();
        status.code().unwrap()
    }

    /// Its resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB").parse::<u64>();
        kib.unwrap() / 1024
    }

    /// Whether it is stopped, by a signal or by itself.
    pub(crate) fn is_stopped(&self) -> bool {
        // "pid (name) state ..."; the name is ours and has no parenthesis.
        let stat = lossy(&Path::new("/proc").join(self.pid.to_string()).join("stat"));
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    }

    /// What it wrote to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        lossy(&self.folder.join("stdout"))
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        lossy(&self.folder.join("stderr"))
    }

    /// Everything that it wrote so far.
    pub(crate) fn output(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// The lines of its log with this message, oldest first.
    pub(crate) fn logged(&self, message: &str) -> Vec<Value> {
        self.stdout()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["message"] == message)
            .collect()
    }
}

impl Drop for Process {
    #[expect(
        clippy::print_stderr,
        reason = "whoever looks for the fault wants to know where the log is"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let folder = self.folder.display();
            eprintln!("process {} wrote to {folder}", self.pid);
        }
    }
}

/// What a command that ends by itself said.
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `ringmaster ARGUMENTS` to its end with no more environment than `settings`.
pub(crate) async fn run(arguments: &[&str], settings: &BTreeMap<String, String>) -> Finished {
    let mut process = Process::start(arguments, settings).await;
    Finished {
        code: process.exit().await,
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

/// Sends a signal by name to a process, which must be one that this test started.
pub(crate) async fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -{name} {pid}")]);
    assert!(kill.status().await.unwrap().success(), "kill -{name}");
}

fn lossy(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

/// `ringmaster serve` in a process of its own.
pub(crate) struct Served {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// Bound and never listening: nobody else is given the port, and the process, which listens at it, does not mind.
    _port: TcpSocket,
}

impl Served {
    /// Starts a process that serves with `settings`, at a port of its own.
    pub(crate) async fn start(mut settings: BTreeMap<String, String>) -> Self {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = port.local_addr().unwrap();
        settings.insert("HOST".to_owned(), address.ip().to_string());
        settings.insert("PORT".to_owned(), address.port().to_string());
        Self {
            process: Process::start(&["serve"], &settings).await,
            address,
            _port: port,
        }
    }

    /// The admin's view through this process alone.
    pub(crate) fn admin(&self) -> Api {
        self.api(ADMIN_KEY)
    }

    /// The view of the holder of `key` through this process alone.
    pub(crate) fn api(&self, key: &str) -> Api {
        Api::new(&format!("http://{}", self.address), key)
    }

    /// Its container id.
    pub(crate) async fn container(&self) -> String {
        let mut id = None;
        until("the process says its container id", async || {
            let starting = self.process.logged("starting");
            id = starting
                .first()
                .and_then(|line| line["containerId"].as_str().map(str::to_owned));
            id.is_some()
        })
        .await;
        id.unwrap()
    }

    /// Waits until it lets requests in.
    pub(crate) async fn until_ready(&self) {
        let admin = self.admin();
        until("the process is ready", async || {
            admin.get("/v1/containers").await.status == 200
        })
        .await;
    }
}

impl World {
    /// Starts a container as a process of its own behind the public address.
    pub(crate) async fn process(&self, overrides: &[(&str, &str)]) -> Served {
        let served = Served::start(self.settings(overrides)).await;
        served.until_ready().await;
        self.balancer.add(served.address);
        served
    }
}
