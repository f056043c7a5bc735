//! What providers do beyond the standards, over real connections: limits in their words, tokens that run out, connections
//! that die.

use std::time::Duration;

use secrecy::SecretString;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Allowance, Behaviour, Farewell, OAuthSettings, Options, Provider, Rate, Running,
    tests::{DEADLINE, ann, imap, smtp, start, submit},
};
use crate::{
    imap::{Client as ImapClient, Deadlines, Limits, MailboxName},
    smtp::{Channel, Client as SmtpClient, Credentials, Outcome, Timeouts},
};

const TO: [&str; 1] = ["bob@customer.test"];
const MINUTE: Duration = Duration::from_mins(1);

fn said(outcomes: &[Outcome]) -> String {
    match outcomes {
        [Outcome::Refused(reply) | Outcome::Deferred(reply)] => reply.to_string().replace('\n', " "),
        other => format!("{other:?}"),
    }
}

async fn allowing(behaviour: Behaviour, allowance: Allowance) -> Running {
    start(Behaviour { allowance, ..behaviour }).await
}

#[tokio::test]
async fn gmail_takes_so_many_recipients_a_day_and_no_more() {
    let allowance = Allowance { recipients: Some(Rate::new(2, MINUTE)), ..Allowance::gmail() };
    let running = allowing(Behaviour::google(), allowance).await;
    let mut client = smtp(running.submission).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(submit(&mut client, &ann(), &TO).await.unwrap()[..], [Outcome::Accepted { .. }]));
    }
    let over = said(&submit(&mut client, &ann(), &TO).await.unwrap());
    assert!(over.starts_with("550 5.4.5 Daily user sending limit exceeded."), "{over}");
    assert_eq!(running.provider.messages(&ann(), "[Gmail]/Sent Mail").len(), 2);
    running.stop().await;
}

#[tokio::test]
async fn exchange_online_takes_three_submissions_at_a_time_and_thirty_a_minute() {
    let messages = Some(Rate::new(3, MINUTE));
    let running = allowing(Behaviour::microsoft(), Allowance { messages, ..Allowance::microsoft() }).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = smtp(running.submission).await.unwrap();
        assert!(matches!(submit(&mut client, &ann(), &TO).await.unwrap()[..], [Outcome::Accepted { .. }]));
        clients.push(client);
    }
    let mut fourth = smtp(running.submission).await.unwrap();
    let over = said(&submit(&mut fourth, &ann(), &TO).await.unwrap());
    assert!(over.starts_with("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"), "{over}");
    let over = said(&submit(&mut clients[0], &ann(), &TO).await.unwrap());
    assert!(over.starts_with("421 4.4.2 Message submission rate for this client"), "{over}");
    running.stop().await;
}

#[tokio::test]
async fn the_fourth_submission_gets_in_when_one_has_gone() {
    let running =
        allowing(Behaviour::microsoft(), Allowance { submissions: Some(1), ..Allowance::default() }).await;
    let mut first = smtp(running.submission).await.unwrap();
    submit(&mut first, &ann(), &TO).await.unwrap();
    first.quit().await;
    let got_in = async {
        loop {
            let mut next = smtp(running.submission).await.unwrap();
            if matches!(submit(&mut next, &ann(), &TO).await.unwrap()[..], [Outcome::Accepted { .. }]) {
                return;
            }
        }
    };
    timeout(DEADLINE, got_in).await.expect("a place that is free can be taken");
    running.stop().await;
}

#[tokio::test]
async fn a_token_opens_the_doors_it_is_for_and_its_sessions_end_with_it() {
    let oauth = OAuthSettings { lifetime: Duration::from_secs(4), ..OAuthSettings::default() };
    let options = Options { oauth, behaviour: Behaviour::microsoft(), ..Options::default() };
    let running = Provider::start(options).await.unwrap();
    running.provider.add_user(&ann(), "secret").unwrap();
    let reads =
        running.provider.grant(&ann(), &["https://outlook.office.com/IMAP.AccessAsUser.All"]).unwrap();
    let token = SecretString::from(reads.access_token.clone());
    let stream = TcpStream::connect(running.submission).await.unwrap();
    let mut client =
        SmtpClient::connect(stream, "c.test", Channel::ClearTrusted, Timeouts::default()).await.unwrap();
    let credentials = Credentials::Token { username: Some(ann().to_string()), token: token.clone() };
    assert!(client.authenticate(&credentials, None).await.is_err(), "it is for reading");
    let stream = TcpStream::connect(running.imap).await.unwrap();
    let mut client = ImapClient::connect(stream, Limits::default(), Deadlines::default()).await.unwrap();
    client.authenticate_oauthbearer(&ann().to_string(), &token).await.unwrap();
    client.select(&MailboxName::inbox(), None).await.unwrap();
    let ended = client.idle(Instant::now() + DEADLINE).await.unwrap_err().to_string();
    assert!(ended.contains("AccessTokenExpired"), "{ended}");
    running.stop().await;
}

#[tokio::test]
async fn an_idling_session_can_be_cut_off_and_another_one_begun() {
    let running = start(Behaviour::default()).await;
    let mut client = imap(&running).await;
    client.select(&MailboxName::inbox(), None).await.unwrap();
    running.provider.end_sessions(&ann(), Farewell::Drop).unwrap();
    assert!(timeout(DEADLINE, client.idle(Instant::now() + DEADLINE)).await.unwrap().is_err());
    imap(&running).await.select(&MailboxName::inbox(), None).await.unwrap();
    running.stop().await;
}
