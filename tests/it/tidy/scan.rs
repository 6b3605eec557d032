//! Reads Rust source just well enough for the tidy rules: what is code, what is a test, which paths does it name.

use std::{fs, path::Path};

/// One source file, taken apart.
pub(crate) struct Source {
    /// Relative to the repository, with `/`.
    pub(crate) path: String,
    /// As it stands.
    pub(crate) text: String,
    /// Line breaks and code only: comments, the insides of literals and test modules are blank.
    pub(crate) code: String,
    /// Contents of string literals outside test modules.
    pub(crate) strings: Vec<String>,
    /// How many lines are not in a test module.
    pub(crate) lines: usize,
}

/// A path as written, e.g. `super::ids::CallId`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
    /// Whether it is re-exported (`pub use`).
    pub(crate) is_public: bool,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, literals) = blank_literals(text);
        let tests = test_modules(&code);
        let in_tests = |at: usize| tests.iter().any(|range| range.contains(&at));
        let strings = literals
            .into_iter()
            .filter(|(at, _)| !in_tests(*at))
            .map(|(_, text)| text)
            .collect();
        let keep = |(at, character): (usize, char)| {
            if character == '\n' || !in_tests(at) {
                character
            } else {
                ' '
            }
        };
        let test_lines: usize = tests
            .iter()
            .map(|range| code[range.clone()].lines().count())
            .sum();
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            strings,
            lines: text.lines().count() - test_lines,
            code: code.char_indices().map(keep).collect(),
        }
    }

    /// All `.rs` files under a folder of the repository, in order.
    pub(crate) fn all_under(repository: &Path, folder: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut folders = vec![repository.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path
                        .strip_prefix(repository)
                        .unwrap()
                        .to_string_lossy()
                        .replace('\\', "/");
                    found.push(Self::new(&name, &fs::read_to_string(&path).unwrap()));
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Where the file stands in the crate: `src/services/store/mod.rs` is `services::store`; lib.rs is the root, nothing.
    pub(crate) fn module(&self) -> Vec<String> {
        let name = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<String> = name.split('/').map(str::to_owned).collect();
        if module.last().is_some_and(|last| last == "mod") || name == "lib" {
            module.pop();
        }
        module
    }

    /// Whether the file is all tests: `#[cfg(test)] mod tests;` in a file of its own.
    pub(crate) fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
    }

    /// The paths that the code names: every `use`, spelled out, and every `a::b` elsewhere.
    pub(crate) fn paths(&self) -> Vec<NamedPath> {
        let tokens = tokens(&self.code);
        let mut found = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let starts_path = is_name(&tokens, at) && text(&tokens, at.wrapping_sub(1)) != "::";
            if text(&tokens, at) == "use" && text(&tokens, at + 1) != "<" {
                let is_public = matches!(text(&tokens, at.wrapping_sub(1)), "pub" | ")");
                let line = tokens[at].line;
                let mut trees = Vec::new();
                at = use_tree(&tokens, at + 1, Vec::new(), &mut trees);
                found.extend(trees.into_iter().map(|segments| NamedPath {
                    line,
                    segments,
                    is_public,
                }));
            } else if starts_path && text(&tokens, at + 1) == "::" {
                let line = tokens[at].line;
                let mut segments = vec![tokens[at].text.clone()];
                while text(&tokens, at + 1) == "::" && is_name(&tokens, at + 2) {
                    at += 2;
                    segments.push(tokens[at].text.clone());
                }
                found.push(NamedPath {
                    line,
                    segments,
                    is_public: false,
                });
                at += 1;
            } else {
                at += 1;
            }
        }
        found
    }

    /// Line numbers where the code contains the text.
    pub(crate) fn lines_with(&self, needle: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        lines
            .filter(|(_, line)| line.contains(needle))
            .map(|(index, _)| index + 1)
            .collect()
    }
}

/// What a path means in a module: within the crate the full module path, else the external crate's name.
pub(crate) enum Target {
    Crate(Vec<String>),
    External(String),
}

pub(crate) fn resolve(segments: &[String], module: &[String]) -> Target {
    let (first, rest) = segments.split_first().unwrap();
    let ups = segments
        .iter()
        .take_while(|segment| *segment == "super")
        .count();
    let (base, rest) = match first.as_str() {
        "crate" | "ringmaster" => (&module[..0], rest),
        "self" => (module, rest),
        "super" => (
            &module[..module.len().saturating_sub(ups)],
            &segments[ups..],
        ),
        name => return Target::External(name.to_owned()),
    };
    let mut path = [base, rest].concat();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    Target::Crate(path)
}

/// The text with comments and the insides of literals blanked, byte for byte, and the string literals with their places.
fn blank_literals(text: &str) -> (String, Vec<(usize, String)>) {
    let mut code = String::with_capacity(text.len());
    let mut strings = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (length, string) = literal(rest, code.chars().next_back());
        if length == 0 {
            let character = rest.chars().next().unwrap();
            code.push(character);
            at += character.len_utf8();
            continue;
        }
        if let Some(string) = string {
            strings.push((at, string));
        }
        // As many bytes as before, so that places stay the same.
        code.extend(
            rest[..length]
                .bytes()
                .map(|byte| if byte == b'\n' { '\n' } else { ' ' }),
        );
        at += length;
    }
    (code, strings)
}

/// The length of the comment or literal at the start of the text (0: none), and a string literal's contents.
fn literal(rest: &str, before: Option<char>) -> (usize, Option<String>) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), None);
    }
    if let Some(inside) = rest.strip_prefix('"') {
        let end = closing_quote(inside, '"');
        return (end + 2, Some(inside[..end].to_owned()));
    }
    let is_prefix =
        !before.is_some_and(|character| character.is_alphanumeric() || character == '_');
    if let Some(raw) = rest
        .strip_prefix('r')
        .filter(|_| is_prefix || matches!(before, Some('b' | 'c')))
    {
        let fence: String = raw
            .chars()
            .take_while(|character| *character == '#')
            .collect();
        if let Some(inside) = raw[fence.len()..].strip_prefix('"') {
            let end = inside.find(&format!("\"{fence}")).unwrap_or(inside.len());
            return (
                (end + 3 + 2 * fence.len()).min(rest.len()),
                Some(inside[..end].to_owned()),
            );
        }
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        let mut characters = inside.chars();
        let is_escape = characters.next() == Some('\\');
        // 'a is a lifetime, 'a' a character.
        if is_escape || characters.next() == Some('\'') {
            return (closing_quote(inside, '\'') + 2, None);
        }
    }
    (0, None)
}

fn closing_quote(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at,
            _ => {}
        }
    }
    inside.len().saturating_sub(1)
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Where the `#[cfg(test)] mod … { … }` are.
fn test_modules(code: &str) -> Vec<std::ops::Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let mut found: Vec<std::ops::Range<usize>> = Vec::new();
    for (start, _) in code.match_indices(MARK) {
        let mut item = code[start + MARK.len()..].trim_start();
        while item.starts_with("#[") {
            item = item
                .split_once(']')
                .map_or("", |(_, rest)| rest.trim_start());
        }
        let is_block =
            item.starts_with("mod ") && item.find('{') < item.find(';').or(Some(usize::MAX));
        if is_block && item.contains('{') && !found.iter().any(|range| range.contains(&start)) {
            found.push(start..matching_brace(code, code.len() - item.len()));
        }
    }
    found
}

fn matching_brace(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, character) in code[from..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return from + at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

struct Token {
    line: usize,
    text: String,
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let name_length =
                rest.find(|character: char| !character.is_alphanumeric() && character != '_');
            let length = match name_length.unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                length => length,
            };
            found.push(Token {
                line: index + 1,
                text: rest[..length].to_owned(),
            });
            rest = rest[length..].trim_start();
        }
    }
    found
}

fn text(tokens: &[Token], at: usize) -> &str {
    tokens.get(at).map_or("", |token| token.text.as_str())
}

fn is_name(tokens: &[Token], at: usize) -> bool {
    text(tokens, at).starts_with(|character: char| character.is_alphabetic() || character == '_')
}

/// Spells out the tree at a token; answers where it ends.
fn use_tree(
    tokens: &[Token],
    mut at: usize,
    mut prefix: Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    loop {
        match text(tokens, at) {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !matches!(text(tokens, at), "}" | "") {
                    at = use_tree(tokens, at, prefix.clone(), found);
                    if text(tokens, at) == "," {
                        at += 1;
                    }
                }
                return at + 1;
            }
            name => {
                prefix.push(name.to_owned());
                at += 1;
                if text(tokens, at) != "::" {
                    found.push(prefix);
                    return if text(tokens, at) == "as" { at + 2 } else { at };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Vec<String> {
        Source::new("src/a/b.rs", text)
            .paths()
            .iter()
            .map(|path| path.segments.join("::"))
            .collect()
    }

    fn resolved(path: &str, module: &[&str]) -> String {
        let segments: Vec<String> = path.split("::").map(str::to_owned).collect();
        let module: Vec<String> = module.iter().map(|&segment| segment.to_owned()).collect();
        match resolve(&segments, &module) {
            Target::Crate(path) => path.join("::"),
            Target::External(name) => format!("external {name}"),
        }
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text = "a // b::c\n/* d /* e */ f */ g \"h::i \\\" j\" k r#\"l \" m\"# 'n' '\\'' &'o p b\"q\" br\"r\" é \"s\"";
        let source = Source::new("src/a.rs", text);
        let words: Vec<&str> = source.code.split_whitespace().collect();
        assert_eq!(words, ["a", "g", "k", "&'o", "p", "b", "b", "é"]);
        assert_eq!(source.strings, ["h::i \\\" j", "l \" m", "q", "r", "s"]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use crate::x;\n    const S: &str = \"}NAME\";\n}\nfn z() {}\n";
        let source = Source::new("src/a.rs", text);
        assert_eq!(source.lines, 2);
        assert!(source.paths().is_empty() && source.strings.is_empty());
        assert_eq!(source.lines_with("fn z"), [7]);
    }

    #[test]
    fn a_test_module_in_its_own_file_blanks_nothing() {
        assert_eq!(
            Source::new("src/a.rs", "#[cfg(test)]\nmod tests;\nfn a() {\n}\n").lines,
            4
        );
    }

    #[test]
    fn use_trees_are_spelled_out() {
        let text = "use crate::{domain::{ids::{self, CallId}, call::Call as C}, utils::*};\npub(crate) use super::x;";
        let expected = [
            "crate::domain::ids::self",
            "crate::domain::ids::CallId",
            "crate::domain::call::Call",
            "crate::utils::*",
        ];
        assert_eq!(named(text), [&expected[..], &["super::x"]].concat());
        assert!(Source::new("src/a.rs", "pub use a::b;").paths()[0].is_public);
        assert!(!Source::new("src/a.rs", "use a::b;").paths()[0].is_public);
    }

    #[test]
    fn paths_in_code_are_found_with_their_lines() {
        let text = "fn f() -> crate::error::ApiError {\n    mongodb::Client::with::<bson::Document>(x::y!())\n}";
        assert_eq!(
            named(text),
            [
                "crate::error::ApiError",
                "mongodb::Client::with",
                "bson::Document",
                "x::y"
            ]
        );
        assert_eq!(Source::new("src/a.rs", text).paths()[1].line, 2);
        assert!(named("fn f() -> impl Fn() + use<'_, T> {}").is_empty());
    }

    #[test]
    fn paths_resolve_to_modules() {
        assert_eq!(
            resolved("crate::domain::ids", &["routes", "calls"]),
            "domain::ids"
        );
        assert_eq!(
            resolved("super::ids::Id", &["domain", "call"]),
            "domain::ids::Id"
        );
        assert_eq!(
            resolved("super::super::utils", &["services", "store"]),
            "utils"
        );
        assert_eq!(resolved("self::x::self", &["domain"]), "domain::x");
        assert_eq!(resolved("ringmaster::app::run", &["main"]), "app::run");
        assert_eq!(resolved("tokio::spawn", &["domain"]), "external tokio");
    }

    #[test]
    fn files_know_their_modules() {
        assert_eq!(
            Source::new("src/services/store/mod.rs", "").module(),
            ["services", "store"]
        );
        assert_eq!(
            Source::new("src/domain/call.rs", "").module(),
            ["domain", "call"]
        );
        assert!(Source::new("src/lib.rs", "").module().is_empty());
    }
}
