//! The story: a captured mail, the answer, the answer to that, a send from the CRM and its answer.
//!
//! Everybody writes through the same doors as in life: mail clients through the provider, the CRM through our submission
//! port. Not here: the world they live in (`world`).

use std::{sync::Arc, time::Instant};

use anyhow::Context;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    api::{array, text},
    world::{ANN, BOB, PASSWORD, World},
};
use crate::{
    mail::{Address, Envelope, Recipient, ReversePath},
    smtp::{Channel, Client, Credentials, Outcome, Timeouts, Transmission},
};

const EVENTS: &str = "/workspaces/acme/events";

/// A mail somebody writes, as lines.
struct Letter<'a> {
    from: &'a str,
    to: &'a str,
    subject: &'a str,
    id: &'a str,
    answers: Option<&'a str>,
    text: &'a str,
}

impl Letter<'_> {
    fn raw(&self) -> String {
        let date = jiff::fmt::rfc2822::to_string(&jiff::Zoned::now()).unwrap_or_default();
        let thread = self
            .answers
            .map(|id| format!("In-Reply-To: <{id}>\r\nReferences: <{id}>\r\n"))
            .unwrap_or_default();
        format!(
            "From: {}\r\nTo: {}\r\nSubject: {}\r\nDate: {date}\r\nMessage-ID: <{}>\r\n{thread}MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\r\n{}\r\n",
            self.from, self.to, self.subject, self.id, self.text
        )
    }
}

/// Prints what happens with the time since the beginning.
struct Timeline(Instant);

impl Timeline {
    fn tell(&self, who: &str, what: &str) {
        println!("  {:5.1} s  {who:<9} {what}", self.0.elapsed().as_secs_f64());
    }
}

pub(super) async fn play(world: &World) -> anyhow::Result<()> {
    let (line, mut after) = (Timeline(Instant::now()), None);
    world.api.event(EVENTS, "account.connected", &mut after).await?;
    line.tell("gateway", "Ann's account is connected; it follows INBOX and Sent");
    let first = capture(world, &line, &mut after).await?;
    let answer = bob_answers(world, &line, &mut after, &first).await?;
    ann_answers(world, &line, &mut after, &answer).await?;
    let sent = crm_sends(world, &line, &mut after, &answer).await?;
    bob_answers_the_crm(world, &line, &mut after, &sent).await?;
    conclude(world, &line).await
}

async fn capture(world: &World, line: &Timeline, after: &mut Option<String>) -> anyhow::Result<String> {
    line.tell("Ann", "writes to Bob from her own mail client, with the capture address in Bcc");
    let id = "offer-1@acme.example";
    let letter = Letter {
        from: "Ann Lee <ann@acme.example>",
        to: "Bob Ray <bob@prospect.example>",
        subject: "Ten standing desks",
        id,
        answers: None,
        text: "Hello Bob,\r\n\r\nhere is the offer we talked about.\r\n\r\nAnn",
    };
    submit(world, ANN, &[BOB, &world.capture_address], &letter.raw()).await?;
    let contact = world.api.event(EVENTS, "contact.created", after).await?;
    line.tell("gateway", &format!("contact.created     {} became a contact", text(&contact, "/data/email")));
    let captured = world.api.event(EVENTS, "message.captured", after).await?;
    line.tell("gateway", &format!("message.captured    in {}", text(&captured, "/data/conversation_id")));
    Ok(id.to_owned())
}

async fn bob_answers(
    world: &World,
    line: &Timeline,
    after: &mut Option<String>,
    to: &str,
) -> anyhow::Result<String> {
    line.tell("Bob", "answers Ann; the mail goes to her mailbox at the provider, not to us");
    let id = "answer-1@prospect.example";
    let letter = Letter {
        from: "Bob Ray <bob@prospect.example>",
        to: "Ann Lee <ann@acme.example>",
        subject: "Re: Ten standing desks",
        id,
        answers: Some(to),
        text: "Looks good. Do they come in oak?",
    };
    submit(world, BOB, &[ANN], &letter.raw()).await?;
    told(world, line, after, "message.received", "Bob's answer, read from Ann's INBOX").await?;
    Ok(id.to_owned())
}

async fn ann_answers(
    world: &World,
    line: &Timeline,
    after: &mut Option<String>,
    to: &str,
) -> anyhow::Result<()> {
    line.tell("Ann", "answers from her phone, without any capture address");
    let letter = Letter {
        from: "Ann Lee <ann@acme.example>",
        to: "Bob Ray <bob@prospect.example>",
        subject: "Re: Ten standing desks",
        id: "answer-2@acme.example",
        answers: Some(to),
        text: "They do.",
    };
    submit(world, ANN, &[BOB], &letter.raw()).await?;
    told(world, line, after, "message.sent", "Ann's answer, read from her Sent mailbox").await.map(drop)
}

async fn crm_sends(
    world: &World,
    line: &Timeline,
    after: &mut Option<String>,
    to: &str,
) -> anyhow::Result<String> {
    line.tell("CRM", "hands in a mail over SMTP on the submission port, with an API key as password");
    let id = "crm-1@crm.acme.example";
    let letter = Letter {
        from: "Ann Lee <ann@acme.example>",
        to: "Bob Ray <bob@prospect.example>",
        subject: "Re: Ten standing desks",
        id,
        answers: Some(to),
        text: "Your order form is ready.",
    };
    hand_in(world, &letter.raw()).await?;
    told(world, line, after, "message.sent", "it left from Ann's own account").await?;
    let mailbox = world.provider.provider.messages(&Address::parse(ANN)?, "Sent");
    let copies =
        mailbox.iter().filter(|mail| mail.raw.windows(id.len()).any(|bytes| bytes == id.as_bytes())).count();
    line.tell("provider", &format!("{copies} copy of it lies in Ann's Sent mailbox"));
    Ok(id.to_owned())
}

async fn bob_answers_the_crm(
    world: &World,
    line: &Timeline,
    after: &mut Option<String>,
    to: &str,
) -> anyhow::Result<()> {
    line.tell("Bob", "answers that too");
    let letter = Letter {
        from: "Bob Ray <bob@prospect.example>",
        to: "Ann Lee <ann@acme.example>",
        subject: "Re: Ten standing desks",
        id: "answer-3@prospect.example",
        answers: Some(to),
        text: "Signed. Thank you!",
    };
    submit(world, BOB, &[ANN], &letter.raw()).await?;
    told(world, line, after, "message.received", "the answer to the CRM's mail").await.map(drop)
}

async fn told(
    world: &World,
    line: &Timeline,
    after: &mut Option<String>,
    kind: &str,
    what: &str,
) -> anyhow::Result<Value> {
    let event = world.api.event(EVENTS, kind, after).await?;
    line.tell("gateway", &format!("{kind:<19} {what}"));
    Ok(event)
}

/// Shows the conversation as the CRM reads it.
async fn conclude(world: &World, line: &Timeline) -> anyhow::Result<()> {
    let conversations = world.api.get("/workspaces/acme/conversations").await?;
    let items = array(&conversations, "/items");
    line.tell("CRM", &format!("sees {} conversation:\n", items.len()));
    let conversation = items.first().context("there is a conversation")?;
    let messages = world
        .api
        .get(&format!("/workspaces/acme/conversations/{}/messages", text(conversation, "/id")))
        .await?;
    println!("    {}  ({})", text(conversation, "/subject"), text(conversation, "/id"));
    for message in array(&messages, "/items") {
        let via: Vec<_> = array(message, "/sightings").iter().map(|seen| text(seen, "/via")).collect();
        let first_line =
            text(message, "/reply_text").lines().find(|line| !line.is_empty()).unwrap_or_default();
        println!(
            "    {:<9} {:<8} {:<32} seen by {}",
            text(message, "/direction"),
            text(message, "/author/name"),
            first_line,
            via.join(", ")
        );
    }
    Ok(())
}

/// What a person's mail client does: log in at the provider and submit.
async fn submit(world: &World, from: &str, to: &[&str], raw: &str) -> anyhow::Result<()> {
    let stream =
        TcpStream::connect(world.provider.submission).await.context("the provider's submission port")?;
    let mut client =
        Client::connect(stream, "client.example", Channel::ClearTrusted, Timeouts::default()).await?;
    client.authenticate(&Credentials::password(from, PASSWORD), None).await?;
    transmit(&mut client, from, to, raw).await
}

/// What a CRM does: STARTTLS on our submission port, its API key as password.
async fn hand_in(world: &World, raw: &str) -> anyhow::Result<()> {
    let address =
        world.gateway.addresses.submission.first().context("the submission listener has an address")?;
    let stream = TcpStream::connect(address).await?;
    let client = Client::connect(stream, "crm.acme.example", Channel::Clear, Timeouts::default()).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(world.trusting_tls()?));
    let name = rustls::pki_types::ServerName::try_from("localhost")?;
    let mut client = client.starttls(|stream| connector.connect(name, stream)).await?;
    client.authenticate(&Credentials::password(ANN, &world.key), None).await?;
    transmit(&mut client, ANN, &[BOB], raw).await
}

async fn transmit<S>(client: &mut Client<S>, from: &str, to: &[&str], raw: &str) -> anyhow::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut envelope = Envelope::new(ReversePath::Address(Address::parse(from)?));
    for recipient in to {
        envelope.recipients.push(Recipient::new(Address::parse(recipient)?));
    }
    let outcomes = match client.send_data(&envelope, raw.as_bytes()).await? {
        Transmission::Settled(outcomes) => outcomes,
        Transmission::Pending(pending) => pending.finish().await,
    };
    let refused = outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Accepted { .. }));
    anyhow::ensure!(refused.is_none(), "a mail was not accepted: {refused:?}");
    Ok(())
}
