//! PURE. The variable of an upgrade: numbers of descriptors, each with its purpose.
#![forbid(unsafe_code)]

/// A descriptor's number.
type Number = i32;

/// Everything that is handed over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HandedOver {
    pub(super) stream: Number,
    pub(super) addresses: Vec<Address>,
}

/// The descriptors of one address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) reserved: Option<Number>,
    /// One for each slot, `None` for a slot without; empty if all workers share one.
    pub(super) slots: Vec<Option<Number>>,
    pub(super) name: String,
}

/// `None` if no pool has made it, or if a number occurs twice, which would then be closed twice.
pub(super) fn read(text: &str) -> Option<HandedOver> {
    let mut lines = text.lines();
    let stream = number(lines.next()?)?;
    let addresses: Vec<Address> = lines.map(address).collect::<Option<_>>()?;
    let of_addresses = addresses.iter().flat_map(|it| it.slots.iter().copied().chain([it.reserved]).flatten());
    let mut all: Vec<Number> = of_addresses.chain([stream]).collect();
    all.sort_unstable();
    let is_each_once = all.windows(2).all(|pair| pair[0] != pair[1]);
    is_each_once.then_some(HandedOver { stream, addresses })
}

fn address(line: &str) -> Option<Address> {
    let mut parts = line.splitn(3, ' ');
    let (reserved, slots, name) = (parts.next()?, parts.next()?, parts.next()?);
    let slots = if slots == "-" { Vec::new() } else { slots.split(',').map(hole_or_number).collect::<Option<_>>()? };
    Some(Address { reserved: hole_or_number(reserved)?, slots, name: name.to_owned() })
}

fn hole_or_number(text: &str) -> Option<Option<Number>> {
    if text == "-" {
        Some(None)
    } else {
        number(text).map(Some)
    }
}

fn number(text: &str) -> Option<Number> {
    text.parse().ok().filter(|number| *number >= 0)
}

/// The entry point of a fuzzer ([`crate::fuzzing`]).
#[cfg(any(fuzzing, test))]
#[allow(missing_docs, unreachable_pub)]
pub fn fuzz(bytes: &[u8]) {
    let Some(read) = read(&String::from_utf8_lossy(bytes)) else { return };
    let shown = |number: &Option<Number>| number.map_or("-".to_owned(), |number| number.to_string());
    let lines = read.addresses.iter().map(|it| {
        let slots: Vec<String> = it.slots.iter().map(shown).collect();
        let slots = if slots.is_empty() { "-".to_owned() } else { slots.join(",") };
        format!("\n{} {slots} {}", shown(&it.reserved), it.name)
    });
    let text = format!("{}{}", read.stream, lines.collect::<String>());
    let again = self::read(&text).expect("it was read once");
    // A single missing slot is written like no slots at all.
    assert_eq!(again.stream, read.stream);
    assert_eq!(again.addresses.len(), read.addresses.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_one_owner() {
        let read_whole = read("3\n4 5,-,6 127.0.0.1:80\n- 7 udp:127.0.0.1:53\n8 - unix:/run/a b").expect("it is valid");
        assert_eq!(read_whole.stream, 3);
        assert_eq!(read_whole.addresses[0].slots, [Some(5), None, Some(6)]);
        assert_eq!(read_whole.addresses[2].name, "unix:/run/a b");
        for wrong in
            ["", "x", "-1", "3\n", "3\n\n", "3\n4 5", "3\n3 - a", "3\n4 5,5 a", "3\n4 5 a\n- 4 b", "3\n4 5,x a"]
        {
            assert_eq!(read(wrong).is_some(), wrong == "3\n", "{wrong:?}");
        }
    }
}
