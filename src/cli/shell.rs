//! Shell completions for the verbs and options.

use super::output::put;
use super::verbs::{long, Verb, VERBS};
use super::{exec, text};

/// The completion script for a shell; `None` for an unknown shell.
pub(super) fn completions(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// An option, as shells complete it.
struct Flag {
    /// The names with their dashes, the long one last.
    names: Vec<String>,
    takes_value: bool,
    /// The possible values.
    choices: Vec<String>,
    /// What the value is if there are none.
    kind: Value,
    /// What the option does, in a few words without quotes.
    summary: String,
}

/// What a value may be, so far as shells can complete it.
#[derive(Clone, Copy, PartialEq)]
enum Value {
    Path,
    Directory,
    User,
    Group,
}

/// The options of the binary itself, or of a verb.
fn flags(verb: Option<&Verb>) -> Vec<Flag> {
    let mut flags = Vec::new();
    for (spelled, description) in text::sections(verb).into_iter().flat_map(|(_, options)| options) {
        let (names, value) = spelled.split_once(" <").unwrap_or((&spelled, ""));
        let summary = description.split([';', ':', ',', '[', '(']).next().unwrap_or_default();
        let summary = summary.split(". ").next().unwrap_or_default();
        flags.push(Flag {
            names: names.split(", ").map(str::to_owned).collect(),
            takes_value: !value.is_empty(),
            kind: match names {
                "--user" => Value::User,
                "--group" => Value::Group,
                _ if value == "DIR>" => Value::Directory,
                _ => Value::Path,
            },
            choices: choices(verb, names, value.trim_end_matches('>')),
            summary: summary.trim_end().replace('\'', ""),
        });
    }
    flags
}

/// The words that an option takes as its value.
fn choices(verb: Option<&Verb>, names: &str, value: &str) -> Vec<String> {
    let setting = forkpool::settings().find(|setting| long(names) == Some(setting.name()));
    let words = match setting {
        // Verbs have options of their own.
        Some(setting) if verb.is_none_or(Verb::is_exec) => setting.words(),
        _ if value.contains('|') => value.split('|').collect(),
        _ => Vec::new(),
    };
    let is_refused = |word: &&str| {
        let is_balance = setting.is_some_and(|setting| setting.name() == exec::BALANCE);
        verb.is_some() && is_balance && exec::is_counting(word)
    };
    words.into_iter().filter(|word| !is_refused(word)).map(str::to_owned).collect()
}

/// The names of the flags, each followed by a blank.
fn words(flags: &[Flag]) -> String {
    flags.iter().flat_map(|flag| &flag.names).map(|name| format!("{name} ")).collect()
}

fn verbs(separator: &str) -> String {
    VERBS.iter().map(|verb| verb.name).collect::<Vec<_>>().join(separator)
}

/// The binary itself, then each verb.
fn everything() -> impl Iterator<Item = Option<&'static Verb>> {
    [None].into_iter().chain(VERBS.iter().map(Some))
}

fn bash() -> String {
    let (mut values, mut options) = (String::new(), String::new());
    let mut seen: Vec<String> = Vec::new();
    for verb in everything() {
        let whose = verb.map_or("", |verb| verb.name);
        for flag in flags(verb).into_iter().filter(|flag| flag.takes_value) {
            let name = format!("{whose}:{}", flag.names.last().map_or("", String::as_str));
            if !flag.choices.is_empty() {
                put(&mut values, format_args!("    {name}) words='{}' ;;\n", flag.choices.join(" ")));
            }
            let listed = match flag.kind {
                Value::User => "-u",
                Value::Group => "-g",
                Value::Directory => "-d",
                Value::Path => "",
            };
            if !listed.is_empty() {
                let compgen = format!("mapfile -t COMPREPLY < <(compgen {listed} -- \"$word\")");
                put(&mut values, format_args!("    {name}) {compgen}; return ;;\n"));
            }
            seen.push(name);
        }
    }
    for verb in VERBS {
        let words = words(&flags(Some(verb))) + &verb.operands().join(" ");
        put(&mut options, format_args!("        {}) words='{}' ;;\n", verb.name, words.trim_end()));
    }
    let (names, seen, own) = (verbs("|"), seen.join("|"), words(&flags(None)) + &verbs(" "));
    format!(
        "\
_forkpool() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} verb='' words='' i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        --)
            # A program and its arguments, completed as if they stood alone.
            if [[ $verb != exec || $word == */* ]]; then return
            elif ((COMP_CWORD == i + 1)); then mapfile -t COMPREPLY < <(compgen -c -- \"$word\")
            elif declare -F _command_offset > /dev/null; then _command_offset $((i + 1))
            fi
            return ;;
        {names}) verb=${{verb:-${{COMP_WORDS[i]}}}} ;;
        esac
    done
    case $verb:$previous in
{values}    {seen}) return ;;
    *)
        case $verb in
{options}        *) words='{own}' ;;
        esac ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")
}}
complete -o bashdefault -o default -F _forkpool forkpool
"
    )
}

fn zsh() -> String {
    let specs = |verb: Option<&Verb>| -> String {
        let spec = |flag: Flag| -> String {
            let value = match (flag.takes_value, flag.choices.as_slice()) {
                (false, _) => String::new(),
                (true, []) => format!(
                    ":value:{}",
                    match flag.kind {
                        Value::User => "_users",
                        Value::Group => "_groups",
                        Value::Directory => "_files -/",
                        Value::Path => "_files",
                    }
                ),
                (true, choices) => format!(":value:({})", choices.join(" ")),
            };
            flag.names.iter().map(|name| format!(" \\\n        '{name}[{}]{value}'", flag.summary)).collect()
        };
        flags(verb).into_iter().map(spec).collect()
    };
    let mut cases = String::new();
    for verb in VERBS {
        let operand = match verb.operands().as_slice() {
            // The program's own completions expect its name to be the first word.
            [] if verb.is_exec() => "'*::program:_normal'".to_owned(),
            [] => "'*:file:_files'".to_owned(),
            choices => format!("'2:operand:({})'", choices.join(" ")),
        };
        put(
            &mut cases,
            format_args!(
                "    {}) {}{} \\\n        {operand} ;;\n",
                verb.name,
                // For `exec`, drops the words before the program.
                match verb.is_exec() {
                    true => "words=(\"${(@)words[at,-1]}\") && ((CURRENT -= at - 1)); _arguments -S",
                    false => "_arguments",
                },
                specs(Some(verb))
            ),
        );
    }
    let known: String = VERBS.iter().map(|verb| format!("        '{}:{}'\n", verb.name, verb.summary)).collect();
    let (names, own) = (verbs("|"), specs(None));
    format!(
        "\
#compdef forkpool
_forkpool() {{
    local -a verbs=(
{known}    )
    local -i at=${{words[(i)({names})]}}
    case ${{words[at]}} in
{cases}    *) _arguments{own} \\
        '1:verb:{{_describe verb verbs}}' ;;
    esac
}}
compdef _forkpool forkpool
"
    )
}

/// Completes what follows `--` as if it stood alone; fails if there is no `--`.
const FISH_PROGRAM: &str = "\
function __forkpool_program
    set -l words (commandline -opc)
    set -l dashes (contains -i -- -- $words)
    or return
    set -e words[1..$dashes]
    complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
end
";

fn fish() -> String {
    let mut script = String::new();
    let is_first = format!("not __fish_seen_subcommand_from {}", verbs(" "));
    for verb in VERBS {
        put(
            &mut script,
            format_args!("complete -c forkpool -f -n '{is_first}' -a {} -d '{}'\n", verb.name, verb.summary),
        );
    }
    for verb in everything() {
        let when = verb.map_or(is_first.clone(), |verb| format!("__fish_seen_subcommand_from {}", verb.name));
        if verb.is_some_and(Verb::is_exec) {
            script += FISH_PROGRAM;
            put(
                &mut script,
                format_args!("complete -c forkpool -f -n '{when}; and __forkpool_program' -a '(__forkpool_program)'\n"),
            );
        }
        for choice in verb.map(Verb::operands).unwrap_or_default() {
            put(&mut script, format_args!("complete -c forkpool -f -n '{when}' -a {choice}\n"));
        }
        for flag in flags(verb) {
            put(&mut script, format_args!("complete -c forkpool -n '{when}'"));
            for name in &flag.names {
                match long(name) {
                    Some(name) => put(&mut script, format_args!(" -l {name}")),
                    None => put(&mut script, format_args!(" -s {}", name.trim_start_matches('-'))),
                }
            }
            match (flag.takes_value, flag.choices.as_slice()) {
                (false, _) => {}
                (true, []) => {
                    script += match flag.kind {
                        Value::User => " -x -a '(__fish_complete_users)'",
                        Value::Group => " -x -a '(__fish_complete_groups)'",
                        Value::Directory => " -x -a '(__fish_complete_directories)'",
                        Value::Path => " -r",
                    }
                }
                (true, choices) => put(&mut script, format_args!(" -x -a '{}'", choices.join(" "))),
            }
            put(&mut script, format_args!(" -d '{}'\n", flag.summary));
        }
    }
    script
}
