//! The tricks of two published studies with the From field, each written anew: what two programs may read in two ways is no author.

use super::*;

fn of(header: &str) -> Author {
    author(format!("{header}\r\nSubject: x\r\n\r\nFrom: body@evil.example\r\n").as_bytes())
}

#[test]
fn one_mailbox_is_the_author_however_it_is_named() {
    let plain = [
        "From: ann@corp.example",
        "from:ann@corp.example",
        "FROM: <ann@corp.example>",
        "From: Ann <ann@corp.example>",
        "From: Ann Lee <Ann@CORP.example>",
        "From: \"Lee, Ann\" <ann@corp.example>",
        "From: \"Ann \\\"A\\\" Lee\" <ann@corp.example>",
        "From: =?utf-8?q?J=C3=BCrgen?= <ann@corp.example>",
        "From: Jürgen <ann@corp.example>",
        "From:\r\n Ann\r\n\t<ann@corp.example>",
        "From: ann@corp.example (Ann Lee)",
        "From: ann@corp.example <ann@corp.example>",
        "From: \"ann\"@corp.example",
        "From: \"eve@evil.example\" <ann@corp.example>",
        "X-From: eve@evil.example\r\nFrom: ann@corp.example\r\nResent-From: eve@evil.example\r\nSender: eve@evil.example",
        "From ann@corp.example Mon Nov 23 12:00:00 2026\r\nFrom: ann@corp.example",
        "Subject: x\r\n From: eve@evil.example\r\nFrom: ann@corp.example",
    ];
    for header in plain {
        assert_eq!(of(header), Author::One(Address::parse("ann@corp.example").unwrap()), "{header:?}");
    }
    assert_eq!(of("To: ann@corp.example"), Author::Missing);
    let idn = of("From: Ann <ann@bücher.example>");
    assert_eq!(idn, Author::One(Address::parse("ann@xn--bcher-kva.example").unwrap()));
}

#[track_caller]
fn check_odd(odd: &[(&str, &str)]) {
    for (header, word) in odd {
        let Author::Ambiguous(is) = of(header) else { panic!("{header:?} has an author: {:?}", of(header)) };
        assert_eq!(is, *word, "{header:?}");
    }
}

#[test]
fn what_programs_read_differently_has_no_author() {
    let odd = [
        // Two fields, and what only some take for one.
        ("From: ann@corp.example\r\nFrom: eve@evil.example", "fields"),
        ("From: ann@corp.example\r\nFROM: ann@corp.example", "fields"),
        ("From : ann@corp.example", "name"),
        ("From\t: ann@corp.example", "name"),
        ("From: eve@evil.example\r\nFrom : ann@corp.example", "name"),
        ("From : ann@corp.example\r\nFrom: eve@evil.example", "name"),
        (" From: ann@corp.example\r\nFrom: eve@evil.example", "name"),
        ("From\0: ann@corp.example\r\nFrom: eve@evil.example", "name"),
        ("\0From: ann@corp.example\r\nFrom: eve@evil.example", "name"),
        ("Fr\u{200b}om: ann@corp.example\r\nFrom: eve@evil.example", "name"),
        ("From\u{a0}: ann@corp.example\r\nFrom: eve@evil.example", "name"),
        ("Fr om: ann@corp.example\r\nFrom: eve@evil.example", "name"),
        ("From\r\n : ann@corp.example\r\nFrom: eve@evil.example", "name"),
        ("From\r\n\t: ann@corp.example", "name"),
        ("Subject: x\rFrom: ann@corp.example\r\nFrom: eve@evil.example", "line"),
        ("Subject: x\0From: ann@corp.example\r\nFrom: eve@evil.example", "line"),
        ("no field\r\nFrom: ann@corp.example", "line"),
        (" \r\nFrom: ann@corp.example", "line"),
    ];
    check_odd(&odd);
}

#[test]
fn what_names_several_mailboxes_or_none_clearly_has_no_author() {
    let odd = [
        // One field, several mailboxes.
        ("From: ann@corp.example, eve@evil.example", "mailboxes"),
        ("From: <ann@corp.example>, <bob@corp.example>", "mailboxes"),
        ("From: <ann@corp.example><eve@evil.example>", "mailboxes"),
        ("From: <ann@corp.example> <eve@evil.example>", "mailboxes"),
        ("From: ,ann@corp.example", "mailboxes"),
        ("From: ann@corp.example,", "mailboxes"),
        ("From: staff: ann@corp.example;", "group"),
        ("From: undisclosed:;", "group"),
        ("From: ann@corp.example; eve@evil.example", "group"),
        // Routes.
        ("From: <@evil.example:ann@corp.example>", "route"),
        ("From: <@evil.example,@b.example:ann@corp.example>", "route"),
        ("From: <@ann@corp.example>", "route"),
        ("From: <ann@corp.example, eve@evil.example>", "route"),
        // Comments.
        ("From: <ann@corp.example(.evil.example>", "comment"),
        ("From: <ann@corp.example(x).evil.example>", "comment"),
        ("From: (ann@corp.example) eve@evil.example", "comment"),
        ("From: eve@evil.example (<ann@corp.example>)", "comment"),
        ("From: ann@corp.example(a(b)c)", "comment"),
        ("From: ann@corp.example (", "comment"),
        ("From: ann@corp.example)", "comment"),
        // Quotes and backslashes.
        ("From: \"ann@corp.example\"@evil.example", "quoted"),
        ("From: <\"ann@corp.example>\\\"\"@evil.example>", "quoted"),
        ("From: \"ann lee\"@corp.example", "quoted"),
        ("From: ann\\@corp.example@evil.example", "quoted"),
        ("From: \"Ann <ann@corp.example>", "quoted"),
        ("From: <ann@corp.example\\>", "quoted"),
        // Around the angle brackets.
        ("From: ann@corp.example <eve@evil.example>", "display"),
        ("From: <eve@evil.example> ann@corp.example", "trailing"),
        ("From: <ann@corp.example> x", "trailing"),
        ("From: <<ann@corp.example>>", "angle"),
        ("From: <ann@corp.example", "angle"),
        ("From: ann@corp.example>", "angle"),
        // Encoded words.
        ("From: =?utf-8?q?ann=40corp.example?=", "address"),
        ("From: <=?utf-8?q?ann?=@corp.example>", "encoded"),
        ("From: =?utf-8?b?YW5uQGNvcnAuZXhhbXBsZT4A?= <eve@evil.example>", "encoded"),
        ("From: =?utf-8?q?=3Cann=40corp.example=3E?= <eve@evil.example>", "encoded"),
        ("From: =?utf-8?q?ann=40corp.example=00?= <eve@evil.example>", "encoded"),
        // The address itself.
        ("From: ann@corp.example@evil.example", "address"),
        ("From: Ann", "address"),
        ("From: ann@", "address"),
        ("From: ann @corp.example", "space"),
        ("From: <ann@corp.example eve@evil.example>", "address"),
        ("From: ann@corp.example.", "address"),
        ("From: ", "empty"),
        ("From: <>", "address"),
        ("From: ann\0@corp.example", "control"),
        ("From: ann@corp.example\0.evil.example", "control"),
        ("From: ann@corp.example\r\n \r\n <eve@evil.example>", "folding"),
    ];
    check_odd(&odd);
    let long = format!("From: {} <ann@corp.example>", "x".repeat(FROM_BYTES_MAX));
    assert_eq!(of(&long), Author::Ambiguous("long"));
    assert_eq!(author(b"From: Ann \xff <ann@corp.example>\r\n\r\n"), Author::Ambiguous("charset"));
}
