//! The rules that the compiler cannot see: who imports whom, who may do what, how long a file may be, what the documents
//! must mention. Each rule is a table or a small function here; each failure names the file, the line and the rule.

mod scan;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use self::scan::{Source, Target, resolve};

const LINES_OF_A_FILE: usize = 400;
const LINES_OF_MAIN: usize = 60;

/// What a module may import of the crate, itself always included. The first row whose module fits a file is its row.
struct Layer {
    module: &'static str,
    may: &'static [&'static str],
    /// Parts of what it may import that it may not.
    except: &'static [&'static str],
}

const fn layer(module: &'static str, may: &'static [&'static str]) -> Layer {
    Layer {
        module,
        may,
        except: &[],
    }
}

const fn layer_except(
    module: &'static str,
    may: &'static [&'static str],
    except: &'static [&'static str],
) -> Layer {
    Layer {
        module,
        may,
        except,
    }
}

const STORE: &[&str] = &["services::store"];

/// From the inside outwards: pure rules, tools, settings, use cases, HTTP, composition.
const LAYERS: &[Layer] = &[
    layer("domain", &[]),
    layer("utils", &[]),
    layer("config", &["domain", "utils"]),
    layer("services::store", &["domain", "utils", "config"]),
    layer("services::carrier", &["domain", "utils", "config"]),
    layer("services", &["domain", "utils", "config"]),
    // It plays the carrier, so it signs as the carrier does, by the same pure function.
    layer(
        "simulator",
        &["domain", "utils", "services::carrier::plivo_signature"],
    ),
    layer_except("state", &["services", "domain", "utils", "config"], STORE),
    // Of the store only the one error that every service passes on.
    layer_except("error", &["services", "domain", "utils"], STORE),
    layer_except(
        "middleware",
        &["services", "domain", "state", "error", "utils"],
        STORE,
    ),
    layer_except(
        "routes",
        &["services", "domain", "state", "error", "utils"],
        STORE,
    ),
    layer("router", &["routes", "middleware", "state", "error"]),
    layer("app", &["*"]),
    layer("demo", &["*"]),
    layer("chaos", &["*"]),
    layer("commands", &["*"]),
    layer("main", &["commands"]),
];

/// Crates that only some modules may use.
const CRATES: &[(&[&str], &[&str])] = &[
    (&["mongodb", "bson"], &["services::store"]),
    (
        &["reqwest"],
        &["services", "simulator", "app", "demo", "chaos", "commands"],
    ),
    (
        &["axum", "axum_extra", "tower", "tower_http"],
        &[
            "routes",
            "middleware",
            "state",
            "error",
            "router",
            "app",
            "simulator",
            "demo",
        ],
    ),
    (
        &["tokio", "tokio_util", "tracing"],
        &[
            "utils",
            "config",
            "services",
            "simulator",
            "state",
            "error",
            "middleware",
            "routes",
            "app",
            "demo",
            "chaos",
            "commands",
            "main",
        ],
    ),
];

/// Crates that one module inside an allowed one may not use.
const NOT_THERE: &[(&str, &[&str])] = &[("services::store", &["reqwest"])];

/// Texts of code that only some files may hold, and why.
const ONLY_THERE: &[(&[&str], &[&str], &str)] = &[
    (
        &["env::var", "env::set_var"],
        &["src/config"],
        "only config reads the environment",
    ),
    (
        &["Utc::now", "Local::now", "SystemTime::now", "DateTime::now"],
        &["src/utils/clock.rs"],
        "only utils/clock.rs reads the wall clock",
    ),
    (
        &[
            "tokio::spawn",
            "task::spawn(",
            "thread::spawn",
            "Handle::current().spawn",
        ],
        &["src/utils/lifecycle.rs", "src/simulator/"],
        "only utils/lifecycle.rs spawns: what it spawned is drained at shutdown",
    ),
];

/// Variables that only tests set: no release reads them, so people need not know them.
const ONLY_FOR_TESTS: [&str; 1] = ["CRASH_POINTS"];

/// Words that say that something is unfinished; spelled in halves so that this file passes.
const UNFINISHED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The crate's own files without the tests that have a file of their own.
fn sources() -> Vec<Source> {
    let mut sources = Source::all_under(repository(), "src");
    sources.retain(|source| !source.is_test());
    sources
}

fn read(name: &str) -> String {
    fs::read_to_string(repository().join(name))
        .unwrap_or_else(|error| panic!("{name} cannot be read: {error}"))
}

/// Fails with all violations at once.
fn assert_none(violations: &[String]) {
    assert!(
        violations.is_empty(),
        "{} violations:\n  {}",
        violations.len(),
        violations.join("\n  ")
    );
}

/// Whether a module path lies in a module: `services::store::calls` in `services`.
fn within(path: &str, module: &str) -> bool {
    module == "*"
        || path == module
        || path
            .strip_prefix(module)
            .is_some_and(|rest| rest.starts_with("::"))
}

fn within_any(path: &str, modules: &[&str]) -> bool {
    modules.iter().any(|module| within(path, module))
}

/// Whether a service re-exports what is the store's: those who may not import the store would get at it through the service.
fn is_handed_out(own: &str, target: &str) -> bool {
    within_any(target, STORE) && !within_any(own, STORE)
}

fn import_violations(source: &Source) -> Vec<String> {
    let module = source.module();
    let own = module.join("::");
    let Some(layer) = LAYERS.iter().find(|layer| within(&own, layer.module)) else {
        let is_root = module.is_empty();
        return if is_root {
            vec![]
        } else {
            vec![format!("{}: {own} has no row in LAYERS", source.path)]
        };
    };
    let mut violations = Vec::new();
    for path in source.paths() {
        let at = format!("{}:{}", source.path, path.line);
        match resolve(&path.segments, &module) {
            Target::Crate(target) => {
                let target = target.join("::");
                let is_own = within(&target, layer.module);
                // The one word of the store that every service passes on.
                let is_kept_from = within_any(&target, layer.except)
                    && !(layer.module == "error" && target == "services::store::StoreError");
                let is_allowed = within_any(&target, layer.may) && !is_kept_from;
                if !is_own && !is_allowed {
                    violations.push(format!("{at}: {} may not import {target}", layer.module));
                } else if path.is_public && (!is_own || is_handed_out(&own, &target)) {
                    violations.push(format!("{at}: {} may not re-export {target}", layer.module));
                }
            }
            Target::External(name) => {
                let is_kept_out = |(crates, modules): &(&[&str], &[&str])| {
                    crates.contains(&name.as_str()) && !within_any(&own, modules)
                };
                let is_unwanted = |(module, crates): &(&str, &[&str])| {
                    within(&own, module) && crates.contains(&name.as_str())
                };
                if CRATES.iter().any(is_kept_out) || NOT_THERE.iter().any(is_unwanted) {
                    violations.push(format!(
                        "{at}: {} may not use the crate {name}",
                        layer.module
                    ));
                }
            }
        }
    }
    violations
}

fn forbidden_code(source: &Source) -> Vec<String> {
    let mut violations = Vec::new();
    for (needles, homes, rule) in ONLY_THERE {
        if homes.iter().any(|home| source.path.starts_with(home)) {
            continue;
        }
        for line in needles.iter().flat_map(|needle| source.lines_with(needle)) {
            violations.push(format!("{}:{line}: {rule}", source.path));
        }
    }
    violations
}

fn unfinished(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    lines
        .filter(|(_, line)| UNFINISHED.iter().any(|word| line.contains(word)))
        .map(|(index, line)| format!("{}:{}: unfinished: {}", source.path, index + 1, line.trim()))
        .collect()
}

/// Which service names which other one; the store and the carrier lie below all of them and have rows in [`LAYERS`].
fn service_graph(sources: &[Source]) -> BTreeMap<String, BTreeSet<String>> {
    let service = |path: &[String]| match path {
        [services, name, ..] if services == "services" && name != "store" && name != "carrier" => {
            Some(name.clone())
        }
        _ => None,
    };
    let names: BTreeSet<String> = sources
        .iter()
        .filter_map(|source| service(&source.module()))
        .collect();
    let mut graph = BTreeMap::<String, BTreeSet<String>>::new();
    for source in sources {
        let module = source.module();
        let Some(own) = service(&module) else {
            continue;
        };
        for path in source.paths() {
            if let Target::Crate(target) = resolve(&path.segments, &module)
                && let Some(other) = service(&target)
                && other != own
                && names.contains(&other)
            {
                graph.entry(own.clone()).or_default().insert(other);
            }
        }
    }
    graph
}

/// A way through the graph that comes back to its start.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    fn walk<'a>(
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        node: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<String> {
        if let Some(start) = way.iter().position(|passed| *passed == node) {
            return Some(format!("{} -> {node}", way[start..].join(" -> ")));
        }
        if !done.insert(node) {
            return None;
        }
        way.push(node);
        let found = graph
            .get(node)
            .into_iter()
            .flatten()
            .find_map(|next| walk(graph, next, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|node| walk(graph, node, &mut Vec::new(), &mut done))
}

/// The names of environment variables among the strings: capitals, digits and underscores.
fn variables_in_code(source: &Source) -> BTreeSet<String> {
    source
        .strings
        .iter()
        .filter(|text| is_variable(text))
        .cloned()
        .collect()
}

/// The names set in an environment file, commented out or not.
fn variables_in_example(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        line.trim_start_matches(['#', ' '])
            .split_once('=')
            .map(|(name, _)| name.to_owned())
    };
    text.lines()
        .filter_map(name)
        .filter(|name| is_variable(name))
        .collect()
}

fn is_variable(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|character: char| character.is_ascii_uppercase())
        && text
            .chars()
            .all(|character| matches!(character, 'A'..='Z' | '0'..='9' | '_'))
}

/// The modules that lib.rs declares.
fn top_modules(lib: &Source) -> Vec<String> {
    let declared = |line: &str| {
        Some(
            line.trim()
                .strip_prefix("pub mod ")?
                .strip_suffix(';')?
                .to_owned(),
        )
    };
    lib.code.lines().filter_map(declared).collect()
}

/// Whether a document names a module: `x`, x/, x.rs or x::.
fn mentions(document: &str, module: &str) -> bool {
    ["`{}`", "{}/", "{}.rs", "{}::"]
        .iter()
        .any(|form| document.contains(&form.replace("{}", module)))
}

#[test]
fn modules_import_only_what_they_may() {
    assert_none(
        &sources()
            .iter()
            .flat_map(import_violations)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn services_call_each_other_only_downwards() {
    if let Some(cycle) = cycle(&service_graph(&sources())) {
        panic!("services call each other in a circle: {cycle}");
    }
}

#[test]
fn environment_clock_and_spawning_have_one_home_each() {
    assert_none(
        &sources()
            .iter()
            .flat_map(forbidden_code)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_in_domain_is_async() {
    let domain = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("src/domain/"));
    let found = domain.flat_map(|source| {
        let lines = source.lines_with("async ").into_iter();
        lines
            .map(move |line| {
                format!(
                    "{}:{line}: domain is pure: nothing in it waits",
                    source.path
                )
            })
            .collect::<Vec<_>>()
    });
    assert_none(&found.collect::<Vec<_>>());
}

#[test]
fn nothing_is_unfinished() {
    let mut sources = Source::all_under(repository(), "src");
    sources.extend(Source::all_under(repository(), "tests"));
    assert_none(&sources.iter().flat_map(unfinished).collect::<Vec<_>>());
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut violations = Vec::new();
    for source in sources() {
        let most = if source.path == "src/main.rs" {
            LINES_OF_MAIN
        } else {
            LINES_OF_A_FILE
        };
        if source.lines > most {
            violations.push(format!(
                "{}: {} lines without tests; at most {most}",
                source.path, source.lines
            ));
        }
        if !source.text.starts_with("//! ") {
            violations.push(format!(
                "{}: must begin with its documentation (//!)",
                source.path
            ));
        }
    }
    assert_none(&violations);
}

#[test]
fn every_variable_is_in_the_example_and_read() {
    let config = sources().into_iter().filter(|source| {
        source
            .module()
            .first()
            .is_some_and(|first| first == "config")
    });
    let read_variables: BTreeSet<String> = config
        .flat_map(|source| variables_in_code(&source))
        .filter(|name| !ONLY_FOR_TESTS.contains(&name.as_str()))
        .collect();
    let listed = variables_in_example(&read(".env.example"));
    let missing = read_variables
        .difference(&listed)
        .map(|name| format!(".env.example: lacks {name}, which config reads"));
    let unread = listed
        .difference(&read_variables)
        .map(|name| format!(".env.example: {name} is read nowhere"));
    assert_none(&missing.chain(unread).collect::<Vec<_>>());
}

#[test]
fn the_architecture_page_names_every_module() {
    let page = read("CALL_LOGIC.md");
    let modules = top_modules(&Source::new("src/lib.rs", &read("src/lib.rs")));
    assert!(!modules.is_empty());
    let missing = modules.iter().filter(|module| !mentions(&page, module));
    assert_none(
        &missing
            .map(|module| format!("CALL_LOGIC.md: does not mention {module}"))
            .collect::<Vec<_>>(),
    );
}

/// The rules themselves, on small texts.
mod rules {
    use super::*;

    fn imports(path: &str, text: &str) -> Vec<String> {
        import_violations(&Source::new(path, text))
    }

    #[test]
    fn a_layer_may_not_reach_outwards() {
        let found = imports(
            "src/domain/call.rs",
            "//! Doc.\nuse super::ids;\nuse crate::{utils, services::store::Store};",
        );
        assert_eq!(
            found,
            [
                "src/domain/call.rs:3: domain may not import utils",
                "src/domain/call.rs:3: domain may not import services::store::Store",
            ]
        );
        assert_eq!(
            imports("src/domain/call.rs", "fn f() { super::super::error::x() }").len(),
            1
        );
        assert_eq!(
            imports(
                "src/routes/calls.rs",
                "use crate::services::{calls, store};"
            )
            .len(),
            1
        );
        assert_eq!(
            imports(
                "src/utils/clock.rs",
                "use super::backoff;\nuse crate::domain::x;"
            )
            .len(),
            1
        );
        assert_eq!(
            imports(
                "src/main.rs",
                "use ringmaster::{commands, services::calls};"
            )
            .len(),
            1
        );
        assert!(
            imports(
                "src/demo/mod.rs",
                "use crate::{simulator, services::store::Store, app};"
            )
            .is_empty()
        );
        assert_eq!(imports("src/newcomer.rs", "").len(), 1);
        assert!(imports("src/lib.rs", "pub mod newcomer;").is_empty());
    }

    #[test]
    fn the_simulator_may_sign_and_know_nothing_else_of_the_services() {
        assert!(
            imports(
                "src/simulator/api.rs",
                "use crate::services::carrier::plivo_signature::sign;"
            )
            .is_empty()
        );
        assert_eq!(
            imports(
                "src/simulator/api.rs",
                "use crate::services::carrier::plivo_xml;"
            )
            .len(),
            1
        );
    }

    #[test]
    fn crates_have_homes() {
        assert_eq!(
            imports("src/app.rs", "fn f(c: mongodb::Client) {}").len(),
            1
        );
        assert_eq!(
            imports(
                "src/domain/call.rs",
                "use tokio::time; use bson::oid; use chrono::Utc;"
            )
            .len(),
            2
        );
        assert_eq!(imports("src/services/calls.rs", "use axum::Json;").len(), 1);
        assert_eq!(
            imports(
                "src/services/store/calls.rs",
                "use mongodb::Client; use reqwest::Url;"
            )
            .len(),
            1
        );
    }

    #[test]
    fn layers_do_not_re_export_each_other() {
        let found = imports(
            "src/services/calls.rs",
            "pub use crate::domain::call::Call;\npub use super::webhooks::x;",
        );
        assert_eq!(
            found,
            ["src/services/calls.rs:1: services may not re-export domain::call::Call"]
        );
        let of_store = "pub use super::store::calls::CallDoc;";
        assert_eq!(imports("src/services/calls.rs", of_store).len(), 1);
        let inside = "pub use super::call_doc::CallDoc;";
        assert!(imports("src/services/store/calls.rs", inside).is_empty());
    }

    #[test]
    fn services_must_not_form_a_circle() {
        let down = [
            Source::new("src/services/webhooks.rs", "use super::calls::apply;"),
            Source::new(
                "src/services/calls.rs",
                "use crate::services::store::Store; use super::campaigns;",
            ),
            Source::new("src/services/campaigns.rs", ""),
        ];
        assert_eq!(cycle(&service_graph(&down)), None);
        let mut circle = Vec::from(down);
        circle[2] = Source::new(
            "src/services/campaigns.rs",
            "fn f() { crate::services::webhooks::g() }",
        );
        assert_eq!(
            cycle(&service_graph(&circle)).unwrap(),
            "calls -> campaigns -> webhooks -> calls"
        );
    }

    #[test]
    fn forbidden_code_is_found_outside_its_home_and_outside_tests() {
        let text = "fn f() { std::env::var(\"A\"); } // Utc::now\n#[cfg(test)]\nmod tests { fn g() { Utc::now(); } }";
        assert_eq!(
            forbidden_code(&Source::new("src/app.rs", text)),
            ["src/app.rs:1: only config reads the environment"]
        );
        assert!(forbidden_code(&Source::new("src/config.rs", text)).is_empty());
        assert_eq!(
            forbidden_code(&Source::new(
                "src/app.rs",
                "tokio::spawn(x); bson::DateTime::now();"
            ))
            .len(),
            2
        );
    }

    #[test]
    fn unfinished_work_is_found_everywhere() {
        let text = format!(
            "// {}: later\nfn f() {{ {}) }}\n",
            UNFINISHED[0], UNFINISHED[2]
        );
        assert_eq!(unfinished(&Source::new("src/app.rs", &text)).len(), 2);
        assert!(unfinished(&Source::new("src/app.rs", "// to do, in words\n")).is_empty());
    }

    #[test]
    fn variables_are_capitals() {
        let text = "env.text(\"PLIVO_CPS\"); env.text(\"Plivo\");\n#[cfg(test)]\nmod tests { const X: &str = \"TEST_ONLY\"; }";
        let found = variables_in_code(&Source::new("src/config.rs", text));
        assert_eq!(found, BTreeSet::from(["PLIVO_CPS".to_owned()]));
        let example = "# Calls a second.\nPLIVO_CPS=2\n# BASE_URL=https://example.com/?a=b\n# A sentence = no variable\n";
        let expected = ["BASE_URL", "PLIVO_CPS"].map(str::to_owned);
        assert_eq!(variables_in_example(example), BTreeSet::from(expected));
    }

    #[test]
    fn modules_are_mentioned_by_name_not_by_chance() {
        assert_eq!(
            top_modules(&Source::new(
                "src/lib.rs",
                "//! x\npub mod app;\nmod b;\npub mod demo;"
            )),
            ["app", "demo"]
        );
        assert!(mentions("see `app` and demo/", "app") && mentions("see `app` and demo/", "demo"));
        assert!(!mentions("an application", "app"));
    }
}
