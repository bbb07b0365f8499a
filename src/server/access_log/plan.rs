//! PURE. What to append when: the parts of a line, in the order in which they become known.
#![forbid(unsafe_code)]

use super::buffer::{Short, SHORT_MAX};
use crate::shared::config::{AccessLogFormat, LogPart as Part, LogVariable as Variable};

/// How the lines of a format are made.
#[derive(Debug)]
pub(super) struct Plan {
    /// What all lines of a client begin with: the first chunk, if there is something.
    pub(super) prefix: Vec<Step>,
    /// What is known from a request. Each further chunk ends with [`Step::Chunk`].
    pub(super) early: Vec<Step>,
    pub(super) chunks: usize,
    /// The rest of the line, in which each [`Step::Chunk`] stands for the next chunk.
    pub(super) late: Vec<Step>,
    /// The maximum length of all in `late` but the chunks.
    pub(super) late_max: usize,
    /// Whether values are JSON.
    pub(super) is_json: bool,
}

/// A piece of a line.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Text(Short),
    Value(Variable),
    Chunk,
}

/// The maximum length of each value that is known at the end of a response.
pub(super) const LATE_MAX: usize = 40;

impl Plan {
    pub(super) fn of(format: &AccessLogFormat) -> Plan {
        let template = format.template();
        let is_json = template.is_none();
        Plan::new(template.map_or_else(object, |template| template.parts), is_json)
    }

    fn new(parts: Vec<Part>, is_json: bool) -> Plan {
        let mut parts = parts.into_iter().peekable();
        let mut prefix = Vec::new();
        while let Some(part) = parts.next_if(is_of_connection) {
            push(part, &mut prefix);
        }
        let (mut early, mut late, mut chunks) = (Vec::new(), Vec::new(), 0);
        match prefix.iter().any(|step| matches!(step, Step::Value(_))) {
            true => (late, chunks) = (vec![Step::Chunk], 1),
            false => late.append(&mut prefix),
        }
        // Text between two values of a request belongs to their chunk.
        let (mut text, mut is_in_chunk) = (Vec::new(), false);
        for part in parts {
            match &part {
                Part::Text(_) => push(part, &mut text),
                Part::Variable(variable) if is_late(variable) => {
                    if std::mem::take(&mut is_in_chunk) {
                        early.push(Step::Chunk);
                    }
                    late.append(&mut text);
                    push(part, &mut late);
                }
                Part::Variable(_) => {
                    match is_in_chunk {
                        true => early.append(&mut text),
                        false => {
                            late.append(&mut text);
                            late.push(Step::Chunk);
                            (is_in_chunk, chunks) = (true, chunks + 1);
                        }
                    }
                    push(part, &mut early);
                }
            }
        }
        if is_in_chunk {
            early.push(Step::Chunk);
        }
        late.append(&mut text);
        late.push(Step::Text(Short::of(b"\n")));
        let late_max = late.iter().map(Step::late_max).sum();
        Plan { prefix, early, chunks, late, late_max, is_json }
    }

    /// The steps of a line, in no certain order.
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.prefix.iter().chain(&self.early).chain(&self.late)
    }
}

impl Step {
    fn late_max(&self) -> usize {
        match self {
            Step::Text(text) => text.len(),
            Step::Value(_) => LATE_MAX,
            Step::Chunk => 0,
        }
    }
}

/// Appends the steps of a part: one for a variable, and as many as needed for a text.
fn push(part: Part, steps: &mut Vec<Step>) {
    match part {
        Part::Text(text) => steps.extend(text.as_bytes().chunks(SHORT_MAX).map(|text| Step::Text(Short::of(text)))),
        Part::Variable(variable) => steps.push(Step::Value(variable)),
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
    fn what_is_known_together_is_appended_together() {
        let plan = Plan::of(&AccessLogFormat::Combined);
        let shape = |steps: &[Step]| -> String {
            steps
                .iter()
                .map(|step| match step {
                    Step::Text(_) => 't',
                    Step::Value(_) => 'v',
                    Step::Chunk => '.',
                })
                .collect()
        };
        assert_eq!([&plan.prefix, &plan.early, &plan.late].map(|steps| shape(steps)), ["vt", "v.vtv.", ".vt.tvtvt.tt"]);
        let json = Plan::of(&AccessLogFormat::Json);
        assert!(json.is_json && json.chunks == 2);
        assert_eq!(json.early.iter().filter(|step| matches!(step, Step::Chunk)).count(), 2);
    }
}
