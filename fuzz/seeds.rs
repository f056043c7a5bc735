//! Writes the seeds below a folder, one folder for each target: beginnings from which the bytes of each target are grown, made here
//! and taken from nobody's mail. A program of its own that needs nothing of ours, so that it is there in a moment.
//!
//! Not here: what grows out of them, which lies in `corpus` and is nobody's to keep.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let below = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "corpus".to_owned()));
    for (target, seeds) in SEEDS {
        let folder = below.join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}

/// Each target with its seeds.
const SEEDS: [(&str, &[&str]); 12] = [
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
    (
        "query",
        &[
            "limit=50&cursor=AQAGNTYu0r-xAAAAAAAAAAAAAAAAAAAAAA&email=ann%40x.example",
            "state=active&connected=true&types=message.sent,contact.created&after=evt_00000000000000000000000000",
            "user_id=usr_00000000000000000000000000&rfc822_message_id=%3C1%40x.example%3E&verdict=synced&created_by=api&q=%27%25",
        ],
    ),
    (
        "provider_answer",
        &[
            "<?xml version=\"1.0\"?><clientConfig version=\"1.1\"><emailProvider id=\"x\"><incomingServer type=\"imap\"><hostname>imap.%EMAILDOMAIN%</hostname><port>993</port><socketType>SSL</socketType></incomingServer><outgoingServer type=\"smtp\"><hostname>smtp.x.example</hostname><port>587</port><socketType>STARTTLS</socketType></outgoingServer></emailProvider></clientConfig>",
            "{\"access_token\":\"a\",\"token_type\":\"Bearer\",\"expires_in\":3600,\"refresh_token\":\"r\",\"scope\":\"a b\",\"id_token\":\"e30.eyJpc3MiOiJpIiwic3ViIjoicyIsImVtYWlsIjoiYUB4LmV4YW1wbGUifQ.x\"}",
            "{\"error\":\"invalid_grant\",\"error_description\":\"AADSTS70000: gone\\r\\nTrace ID: x\",\"error_codes\":[70000]}",
        ],
    ),
    (
        "sender",
        &[
            "\u{60}From: ann@x.example\r\nDate: Tue, 1 Apr 2025 10:00:00 +0000\r\n\r\nHi\r\nv=spf1 include:%{d2}.y.example a:z.example/24//64 mx ptr exists:%{ir}.x.example redirect=w.example ?all\nv=DMARC1; p=reject; sp=none; np=quarantine; psd=n; adkim=s; aspf=r\n192.0.2.1\nmail.x.example\nv=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all\n",
            "\u{70}DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=x.example; s=s; h=from:date; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\nFrom: ann@x.example\r\n\r\nv=DKIM1; k=rsa; t=y:s; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ==\nsilent\n",
            "\u{78}ARC-Seal: i=1; a=rsa-sha256; cv=none; d=y.example; s=s; t=1; b=AA\r\nARC-Message-Signature: i=1; a=ed25519-sha256; c=relaxed/relaxed; d=y.example; s=s; h=from; bh=AA; b=AA\r\nARC-Authentication-Results: i=1; y.example; spf=pass\r\nFrom: ann@x.example\r\n\r\nHi\nv=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n",
        ],
    ),
];
