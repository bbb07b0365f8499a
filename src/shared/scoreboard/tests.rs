use super::*;

/// A scoreboard on which this process plays all processes.
fn board(processes: usize) -> (ParentBoard, Vec<RowPage>) {
    let board = ParentBoard::new(processes).expect("memory");
    let born = Time::from_millis(1);
    let pages = (1..=processes).map(|row| board.lend(row, row - 1, born).expect("it has a row")).collect();
    (board, pages)
}

const NOW: Time = Time::from_millis(2);

fn assign(board: &ParentBoard, row: usize, count: u64) {
    let assigned = board.row(row).assigned();
    board.set_note(row, Note::Assigned, assigned + count);
}

#[test]
fn totals_survive_the_worker() {
    let (board, pages) = board(2);
    pages[0].row().count_accepted();
    pages[0].row().count_request();
    pages[0].row().count_request();
    pages[1].row().count_request();
    pages[0].row().busy(Time::from_millis(7));
    board.fold(1, NOW);
    assert_eq!(board.dead().requests, 2);
    assert_eq!(board.dead().open(), 0, "its connections have ended with it");
    assert_eq!(board.row(1).requests(), 0);
    assert_eq!(board.row(1).busy_since(), None);
    assert_eq!(board.row(2).requests(), 1);
    board.fold(2, NOW);
    assert_eq!(board.dead().requests, 3);
}

#[test]
fn an_idle_worker_is_settled_by_the_parent() {
    let (board, pages) = board(3);
    board.seat(&[(0, 1), (1, 2), (2, 3)]);
    pages.iter().for_each(|page| page.row().watches());
    let pending = || [1, 2, 3].map(|row| board.row(row).pending());
    (1..=3).for_each(|row| assign(&board, row, 5));
    pages[1].row().busy(Time::from_millis(7));
    let seen = board.settle_idle(&[]);
    assert_eq!(pending(), [5, 5, 5], "they may still come");
    assert_eq!(board.pending(1).len(), 1, "what is pending at others that are idle is seen by each worker");
    assign(&board, 3, 1);
    pages[0].row().count_accepted();
    let seen = board.settle_idle(&seen);
    assert_eq!(pending(), [5, 5, 1], "the first has woken, the second is busy, and the sixth may still come");
    // Two arrived that were assigned to the predecessor.
    pages[2].row().settle(3);
    let seen = board.settle_idle(&seen);
    assert_eq!(pending()[2], 0);
    // Another process gets the row.
    board.fold(3, NOW);
    pages[2].row().watches();
    board.settle_idle(&seen);
    assert_eq!(pending()[2], 0);
}

#[test]
fn seats_are_told_as_they_are() {
    let (board, _) = board(3);
    assert_eq!(board.seats().count(), 0);
    board.seat(&[(0, 2), (5, 0), (1, 3)]);
    assert_eq!(board.seats().collect::<Vec<_>>(), [2, 0, 3]);
    assert_eq!([board.row_of(0), board.row_of(5), board.row_of(1), board.row_of(7)], [Some(2), None, Some(3), None]);
    board.seat(&[(0, 2)]);
    assert_eq!(board.seats().collect::<Vec<_>>(), [2]);
}

#[test]
fn each_rest_of_the_parent_has_a_number_of_its_own() {
    let (board, _) = board(1);
    let first = board.rest();
    assert!(first.is_some());
    board.watch(true);
    board.watch(true);
    assert_eq!(board.rest(), None);
    board.watch(false);
    assert!(board.rest().is_some() && board.rest() != first);
}

#[test]
fn what_cannot_be_counts_for_nothing_and_is_told() {
    let (board, pages) = board(1);
    let row = pages[0].row();
    assert_eq!(board.row(1).doubt(NOW), None);
    row.own[Word::Requests as usize].store(7, Relaxed);
    row.own[Word::Accepted as usize].store(u64::MAX, Relaxed);
    row.own[Word::Closed as usize].store(9, Relaxed);
    assert_eq!(board.row(1).counters(NOW), Counters { requests: 7, ..Counters::default() });
    assert!(board.row(1).doubt(NOW).is_some());
    row.own[Word::Accepted as usize].store(8, Relaxed);
    assert_eq!(board.row(1).doubt(NOW), None, "two words are read one after the other");
    row.busy(Time::from_millis(1 << 50));
    assert!(board.row(1).doubt(NOW).is_some());
}

#[test]
fn a_request_is_named_while_it_lasts_and_whatever_is_written_is_printable() {
    let board = ParentBoard::new(2).expect("memory");
    let page = board.lend(1, 0, NOW).expect("a row");
    assert_eq!(board.request(1), None);
    let long = [b"GET /", &[b'a'; 200][..]].concat();
    for (head, len, expected) in [
        (&b"GET /a?secret HTTP/1.1\r\n"[..], 6, Some("GET /a")),
        (b"GET /abcd?secret HTTP", 8, Some("GET /abc")),
        (b"\r\nGET /\x1b\"\xff HTTP/1.1", 10, Some("GET /\\x1b\\\"\\xff")),
        (&long, long.len(), Some(std::str::from_utf8(&long[..128]).expect("text"))),
        (b"GET /", 0, None),
    ] {
        page.name().set(head, len);
        assert_eq!(board.request(1).as_deref(), expected);
        page.row().idle();
        assert_eq!(board.request(1), None);
    }
    board.fill_rows(&mut || u64::MAX);
    assert!(board.request(1).is_some_and(|name| name.is_ascii() && name.len() <= 512));
    assert_eq!(board.request(usize::MAX), None);
    board.fold(1, NOW);
    assert_eq!(board.request(1), None);
}
