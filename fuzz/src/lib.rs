//! What the targets share: a session's peer and the seeds, which are made here and taken from nobody's mail.
//!
//! Not here: the targets (`targets`), each of which says what must hold whatever the bytes.

#[path = "../../tests/allow_list/mod.rs"]
pub mod allow_list;
#[path = "../../tests/smtp_peer/mod.rs"]
pub mod smtp_peer;

/// Beginnings from which the bytes of each target are grown.
pub const SEEDS: [(&str, &[&str]); 9] = [
    (
        "smtp_command",
        &[
            "EHLO client.example",
            "MAIL FROM:<ann@x.example> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=a+2Bb",
            "MAIL FROM:<> SMTPUTF8",
            "RCPT TO:<\"a b\"@x.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@y.example",
            "RCPT TO:<@r.example:a@[IPv6:2001:db8::1]>",
            "AUTH PLAIN AGFubgBzZWNyZXQ=",
            "BDAT 5 LAST",
            "VRFY ann",
        ],
    ),
    (
        "smtp_session",
        &[
            "\0EHLO c.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nSubject: x\r\n\r\n..y\r\n.\r\nQUIT\r\n",
            "\u{1}EHLO c.example\r\nSTARTTLS\r\nEHLO c.example\r\nAUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\nMAIL FROM:<a@x.example>\r\n",
            "\u{2}HELO c\r\nMAIL FROM:<>\r\nRSET\r\nNOOP\r\nDATA\r\n",
        ],
    ),
    (
        "imap_client",
        &[
            "\u{3}* 1 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* 1 FETCH (UID 3 FLAGS (\\Seen) BODY[HEADER] {4}\r\na: b)\r\n",
            "\u{7}* SEARCH 1 2 3\r\n* ESEARCH (TAG \"a1\") UID ALL 1:3,5\r\n",
            "\u{1}* LIST (\\HasNoChildren \\Sent) \"/\" \"Sent &AOQ-\"\r\n* STATUS INBOX (UIDNEXT 5)\r\n",
            "\0* BYE [UNAVAILABLE] later\r\n",
        ],
    ),
    (
        "message",
        &[
            "From: Ann <a@x.example>\r\nSubject: Fwd: =?utf-8?Q?caf=C3=A9?=\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n---------- Forwarded message ---------\r\nFrom: Bob <b@y.example>\r\nDate: x\r\n\r\nHi\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: c@z.example\r\n\r\nx\r\n--b--\r\n",
            "Content-Type: text/html; charset=iso-2022-jp\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<p>a=3D=\r\n</p>",
            "Content-Type: application/pdf; name*0*=utf-8''a%20; name*1=b.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nSGk=",
        ],
    ),
    (
        "header",
        &[
            "From: \"Lee, Ann\" <a@x.example> (x)\r\nTo: Team: b@y.example, c@z.example;\r\nDate: Tue, 1 Apr 2025 10:00:00 +0200 (CEST)\r\nReferences: <1@x><2@x>\r\nIn-Reply-To: Message from Bob <b@y> of \"Mon\"\r\nList-Id: x <y.z.example>\r\n\r\n",
            "Subject: =?iso-8859-1?B?5Pb8?=\r\n\tmore\r\nMessage-ID: <a@[192.0.2.1]>\r\n\r\n",
        ],
    ),
    (
        "reply_text",
        &[
            "Yes.\n\nOn Mon, 1 Jan 2025 at 10:00, Ann Lee <a@x.example> wrote:\n> Shall we?\n>> When?\n-- \nBob\n",
            "Ja\n\n-----Original Message-----\nVon: Ann <a@x.example>\nGesendet: Montag\nAn: b@y.example\nBetreff: Hi\n\nx\n",
        ],
    ),
    (
        "sanitise",
        &[
            "<div dir=ltr><a href=\"https://x.example\">x</a><img src=cid:a@b alt=y><svg><style><img src=x onerror=y></style></svg></div>",
            "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=x&gt;\">",
            "<a href=\"&#1;java&#10;script:x\">a</a><table background=//x><font color=red>y",
        ],
    ),
    (
        "report",
        &[
            "From: MAILER-DAEMON@x.example\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nfailed\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nFinal-Recipient: rfc822; b@y.example\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 no\r\n\r\n--b--\r\n",
            "From: MAILER-DAEMON@x.example\r\nReturn-Path: <>\r\nSubject: failure notice\r\n\r\n<b@y.example>:\r\nSorry, no mailbox here. (#5.1.1)\r\n",
        ],
    ),
    (
        "route",
        &[
            "ann-0123456789abcdef+why@bcc.example",
            "\"a b\"@x.example",
            "a@[IPv6:2001:db8::1]",
            "j@bücher.example",
        ],
    ),
];
