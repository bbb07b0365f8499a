//! PURE. What to append when: the parts of a line, in the order in which they become known.
//!
//! A line is laid out when its request is known. A value that comes later, and always has the same length, leaves a
//! hole that is filled at the end; one whose length varies is inserted when the line is copied. So a line is finished
//! with two copies. Most lines need none of that, since all that they say is known with the response
//! ([`whole`](Plan::whole)).
#![forbid(unsafe_code)]

use super::buffer::{Short, SHORT_MAX};
use crate::shared::config::{AccessLogFormat, LogPart as Part, LogVariable as Variable};

/// How the lines of a format are made.
#[derive(Debug)]
pub(super) struct Plan {
    /// What all lines of a client begin with.
    pub(super) prefix: Vec<Step>,
    /// The rest of a line, as it is laid out when the request is known.
    pub(super) early: Vec<Step>,
    /// What is missing in it, in the order of the places that [`Step`]s have marked.
    pub(super) late: Vec<Late>,
    /// The maximum length of all that is inserted.
    pub(super) late_max: usize,
    /// Whether values are JSON.
    pub(super) is_json: bool,
    /// If lines begin as in the formats `common` and `combined`, and say nothing that is known only once a response was
    /// sent, but for the second.
    pub(super) whole: Option<WholePlan>,
}

/// How lines are made of which all is known with the response.
#[derive(Debug)]
pub(super) struct WholePlan {
    /// The text between the time and a request that is a GET, with the method.
    pub(super) before_get: Vec<u8>,
    /// The texts between the request and the status, between that and the bytes, and after these.
    pub(super) around_status: [Vec<u8>; 3],
    pub(super) rest: Vec<RestStep>,
}

/// A value after the bytes, and the text after it.
#[derive(Debug)]
pub(super) struct RestStep {
    pub(super) value: Value,
    pub(super) text: Short,
    /// The same if there is no such value.
    pub(super) absent: Short,
}

/// A short text, and what comes after it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) text: Short,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Nothing,
    /// The request line.
    Request,
    /// The value of a header field.
    Field(String),
    /// Something else that is known from the request.
    Of(Variable),
    /// Known at the end, and this many bytes long. Its place is marked.
    Hole(usize),
    /// Known at the end. Its place is marked.
    Gap,
}

/// A value that is known at the end. Those that most lines have are told apart in one step.
#[derive(Clone, Debug)]
pub(super) enum Late {
    Local,
    Status,
    /// Another one that fills a hole.
    Fill(Variable),
    Bytes,
    /// Another one that is inserted.
    Insert(Variable),
}

/// The maximum length of each value that is inserted.
pub(super) const LATE_MAX: usize = 40;

impl Plan {
    pub(super) fn of(format: &AccessLogFormat) -> Plan {
        let template = format.template();
        let is_json = template.is_none();
        Plan::new(template.map_or_else(object, |template| template.parts), is_json)
    }

    fn new(parts: Vec<Part>, is_json: bool) -> Plan {
        let mut parts = parts.into_iter().peekable();
        let (mut prefix, mut early, mut late) = (Steps::default(), Steps::default(), Vec::new());
        while let Some(part) = parts.next_if(is_of_connection) {
            prefix.push(part);
        }
        for part in parts {
            match part {
                Part::Variable(variable) if is_late(&variable) => {
                    let width = width(&variable);
                    early.end_with(width.map_or(Value::Gap, Value::Hole));
                    late.push(match variable {
                        Variable::TimeLocal => Late::Local,
                        Variable::Status => Late::Status,
                        Variable::Bytes => Late::Bytes,
                        variable if width.is_some() => Late::Fill(variable),
                        variable => Late::Insert(variable),
                    });
                }
                part => early.push(part),
            }
        }
        early.text.push(b'\n');
        let inserted = late.iter().filter(|late| matches!(late, Late::Bytes | Late::Insert(_))).count();
        let late_max = inserted * LATE_MAX;
        let (early, is_plain) = (early.done(), matches!(late[..], [Late::Local, Late::Status, Late::Bytes]));
        let whole = if is_plain { WholePlan::of(&early) } else { None };
        Plan { prefix: prefix.done(), early, late, late_max, is_json, whole }
    }

    /// How many places of a line are marked: those of [`late`](Plan::late), and its end.
    pub(super) fn marks(&self) -> usize {
        self.late.len() + 1
    }

    /// The steps of a line.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.prefix.iter().chain(&self.early)
    }
}

impl WholePlan {
    /// For steps that begin with time, request, status and bytes.
    fn of(early: &[Step]) -> Option<WholePlan> {
        let [time, request, status, bytes, first, rest @ ..] = early else { return None };
        let kinds = [&time.value, &request.value, &status.value, &bytes.value];
        let [Value::Hole(_), Value::Request, Value::Hole(_), Value::Gap] = kinds else { return None };
        let texts = rest.iter().map(|step| step.text).chain([Short::of(b"")]);
        let values = [first].into_iter().chain(rest).map(|step| step.value.clone());
        let rest = values.zip(texts).map(|(value, text)| {
            let absent = Short::of(&[b"-", text.as_slice()].concat());
            RestStep { value, text, absent }
        });
        // The end of the line has no value.
        let rest = rest.filter(|step| !matches!(step.value, Value::Nothing) || step.text.len() > 0).collect();
        let around_status = [status, bytes, first].map(|step| step.text.as_slice().to_owned());
        let before_get = [request.text.as_slice(), b"GET "].concat();
        (time.text.len() == 0).then_some(WholePlan { before_get, around_status, rest })
    }
}

/// The maximum length of the text of a step: with a `-` before it, it is still short.
const TEXT_MAX: usize = SHORT_MAX - 1;

/// Steps, and the text that the next one begins with.
#[derive(Default)]
struct Steps {
    steps: Vec<Step>,
    text: Vec<u8>,
}

impl Steps {
    fn push(&mut self, part: Part) {
        match part {
            Part::Text(text) => self.text.extend_from_slice(text.as_bytes()),
            Part::Variable(Variable::Request) => self.end_with(Value::Request),
            Part::Variable(Variable::Field(name)) => self.end_with(Value::Field(name)),
            Part::Variable(variable) => self.end_with(Value::Of(variable)),
        }
    }

    fn end_with(&mut self, value: Value) {
        let mut text = &self.text[..];
        while let Some((first, rest)) = text.split_at_checked(TEXT_MAX).filter(|(_, rest)| !rest.is_empty()) {
            self.steps.push(Step { text: Short::of(first), value: Value::Nothing });
            text = rest;
        }
        self.steps.push(Step { text: Short::of(text), value });
        self.text.clear();
    }

    fn done(mut self) -> Vec<Step> {
        if !self.text.is_empty() {
            self.end_with(Value::Nothing);
        }
        self.steps
    }
}

/// Whether a part is the same for all requests of a client.
fn is_of_connection(part: &Part) -> bool {
    match part {
        Part::Text(_) => true,
        Part::Variable(variable) => matches!(
            variable,
            Variable::Client | Variable::Peer | Variable::User | Variable::Worker | Variable::Process
        ),
    }
}

/// Whether a value is known at the end of the response.
fn is_late(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::TimeLocal
            | Variable::TimeIso
            | Variable::TimeMillis
            | Variable::Millis
            | Variable::Status
            | Variable::Bytes
            | Variable::Seconds
            | Variable::Micros
            | Variable::Exact
    )
}

/// The length of a value that is known at the end, if it is always the same.
fn width(variable: &Variable) -> Option<usize> {
    match variable {
        Variable::TimeLocal => Some(b"21/Nov/2026:09:44:05 +0000".len()),
        Variable::TimeIso => Some(b"2026-11-21T09:44:05+00:00".len()),
        Variable::TimeMillis => Some(b"2026-11-21T09:44:05.067Z".len()),
        Variable::Status => Some(b"200".len()),
        _ => None,
    }
}

/// The template of a JSON object on each line.
fn object() -> Vec<Part> {
    let members = [
        ("time", None),
        ("remote", Some(Variable::Client)),
        ("host", Some(Variable::Host)),
        ("method", Some(Variable::Method)),
        ("target", Some(Variable::Target)),
        ("version", Some(Variable::Version)),
        ("status", Some(Variable::Status)),
        ("bytes", Some(Variable::Bytes)),
        ("duration", Some(Variable::Exact)),
        ("referer", Some(Variable::Field("referer".to_owned()))),
        ("user_agent", Some(Variable::Field("user-agent".to_owned()))),
        ("worker", Some(Variable::Worker)),
        ("pid", Some(Variable::Process)),
    ];
    let mut parts = Vec::new();
    let text = |text: String| Part::Text(text);
    for (name, variable) in members {
        match variable {
            None => parts.extend([
                text(format!("{{\"{name}\":\"")),
                Part::Variable(Variable::TimeMillis),
                text("\"".into()),
            ]),
            Some(variable) => parts.extend([text(format!(",\"{name}\":")), Part::Variable(variable)]),
        }
    }
    parts.push(text("}".to_owned()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_laid_out_with_what_is_known_and_little_is_inserted() {
        let shape = |steps: &[Step]| -> String {
            let kind = |value: &Value| match value {
                Value::Nothing => ' ',
                Value::Request | Value::Field(_) | Value::Of(_) => 'v',
                Value::Hole(_) => '_',
                Value::Gap => '.',
            };
            steps.iter().map(|step| kind(&step.value)).collect()
        };
        let plan = Plan::of(&AccessLogFormat::Combined);
        assert_eq!([&plan.prefix, &plan.early].map(|steps| shape(steps)), ["v ", "_v_.vv "]);
        assert!(matches!(plan.late[..], [Late::Local, Late::Status, Late::Bytes]));
        let json = Plan::of(&AccessLogFormat::Json);
        assert!(json.is_json && json.marks() == 5);
    }
}
