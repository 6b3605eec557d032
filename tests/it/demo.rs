//! The demonstration as a user runs it: one command, on a database and a carrier of its own, and an exit code that says
//! whether every promise was kept.

use std::process::Stdio;

use tokio::process::Command;

use crate::helpers::app::contact;
use crate::helpers::mongod;

#[tokio::test]
async fn the_demo_keeps_its_promises_and_says_so() {
    let folder = mongod::data_dir().with_extension("demo");
    std::fs::create_dir_all(&folder).unwrap();
    let rows: String = (0..60)
        .map(|index| format!("{},Name{index}\n", contact(index)))
        .collect();
    let contacts = folder.join("contacts.csv");
    std::fs::write(
        &contacts,
        format!("number,firstName\n{rows}nobody,Bad\n{},Twice\n", contact(3)),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ringmaster"))
        .arg("demo")
        .arg("--exit")
        .args(["--mongod".as_ref(), mongod::mongod().as_os_str()])
        .args(["--contacts".as_ref(), contacts.as_os_str()])
        .args(["--folder".as_ref(), folder.as_os_str()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let screen = String::from_utf8_lossy(&output.stdout);
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{screen}{faults}");
    assert!(
        screen.contains("62 rows") && screen.contains("60 good, 1 duplicates, 1 refused"),
        "{screen}"
    );
    for promise in ["P1", "P2", "P3", "P4", "P5", "P10"] {
        let line = screen
            .lines()
            .find(|line| line.trim_start().starts_with(promise))
            .unwrap();
        assert!(line.contains(" kept "), "{line}");
    }
    assert!(
        !screen.contains(&contact(0)),
        "no phone number on the screen"
    );
    let log = std::fs::read_to_string(folder.join("demo.log")).unwrap();
    assert!(log.contains("campaign completed") && !log.contains(&contact(0)[1..]));
    std::fs::remove_dir_all(&folder).unwrap();
}
