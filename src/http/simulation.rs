//! What another policy would have made of an account's mail, beside the one in force or a third.
//!
//! Reads alone: nothing is stored, so an `Idempotency-Key` means nothing here. Not here: the simulation (`flow::sync`).

use axum::{Json, extract::State, http::StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, access::Access, account_life::not_worked, body::Input, message_view::mailbox_name,
    openapi::VerdictWord, policy, problem::Problem,
};
use crate::{
    account::Trouble,
    core::{
        account::AccountState,
        decision::{Ruling, Verdict},
        ids::AccountId,
        policy::{
            Choice, Choices, Overrides, Policy, layers,
            simulate::{Course, Day, tally},
        },
    },
    flow::{
        self,
        sync::{self, Example, MESSAGES_MAX, Order, Outcome, Refusal, Report},
    },
};

/// How far back is read when nothing is said.
const DAYS_DEFAULT: u16 = 30;
/// The longest time: every header of it is asked of the provider each time, and the limit on messages is met before in most
/// mailboxes.
pub(super) const DAYS_MAX: u16 = 90;
/// When to come again while as many simulations run as may.
const BUSY_SECONDS: u32 = 30;
/// When to come again while a provider is away that does not say until when.
const AWAY_SECONDS: u32 = 60;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(simulate))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSimulation {
    /// Whose mail.
    #[schema(value_type = String)]
    account_id: AccountId,
    /// How many days back mail is read, 1 to 90; 30 when left out.
    #[schema(minimum = 1, maximum = 90)]
    days: Option<u16>,
    #[schema(example = "keap")]
    preset: String,
    /// Settings that differ from the preset's. What was chosen for the workspace or the user is not mixed in.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({ "match": "all" }))]
    overrides: Map<String, Value>,
    /// What it is compared with; left out, the policy in force for the account's user.
    against: Option<ChosenPolicy>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChosenPolicy {
    #[schema(example = "realpad")]
    preset: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    overrides: Map<String, Value>,
}

impl ChosenPolicy {
    /// The policy that it makes; `within` is where it stands in the body.
    fn check(self, within: &str) -> Result<Policy, Problem> {
        let refused = |bad| {
            let problem = policy::refused(&bad);
            let param = format!("{within}{}", problem.param.as_deref().unwrap_or_default());
            problem.at(param)
        };
        let overrides = Overrides::new(self.overrides).map_err(refused)?;
        let workspace = Choice { preset: Some(self.preset), overrides };
        let choices = Choices { workspace, ..Choices::default() };
        choices.check().map_err(refused)?;
        choices.policy().map_err(refused)
    }
}

/// What would have been.
#[derive(Serialize, ToSchema)]
struct Simulation {
    #[schema(value_type = String)]
    account_id: AccountId,
    days: u16,
    /// The first day of which mail was read.
    #[schema(value_type = String, format = Date)]
    since: jiff::civil::Date,
    /// Messages looked at.
    messages: u64,
    /// Messages whose header the provider could not show. They are in no count.
    unreadable: u64,
    simulated: OutcomeView,
    against: OutcomeView,
    /// Messages whose verdict would be another.
    changed: u64,
    /// From what to what, the most first; also where the verdict stays and the rule does not.
    changes: Vec<ChangeView>,
    /// At most 50 of those whose verdict changes, the newest first. Of their content nothing is told: whoever may simulate may
    /// not therefore read what his users keep private.
    examples: Vec<ExampleView>,
}

/// A policy and what it makes of the mail.
#[derive(Serialize, ToSchema)]
#[schema(as = SimulatedPolicy)]
struct OutcomeView {
    preset: String,
    /// Of the policy in force; null for one that was given.
    version: Option<i64>,
    /// Settings by their names.
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
    synced: u64,
    skipped: u64,
    /// How many messages each rule decided, the most first.
    rules: Vec<RuleView>,
    contacts_created: u64,
    /// Of those synced: messages whose body, which was not read, may hold a file that keeps the whole message out.
    synced_unless_files: u64,
    /// Of those skipped: messages that may report on mail which the CRM sent, and come in if they do.
    skipped_unless_reports: u64,
    quota: QuotaView,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SimulatedRule)]
struct RuleView {
    #[serde(flatten)]
    ruling: RulingView,
    /// The reason in plain words.
    reason: &'static str,
    messages: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SimulatedRuling)]
struct RulingView {
    #[schema(value_type = VerdictWord)]
    verdict: Verdict,
    /// A stable word for the rule.
    rule: &'static str,
}

impl From<&Ruling> for RulingView {
    fn from(ruling: &Ruling) -> Self {
        Self { verdict: ruling.verdict, rule: ruling.rule }
    }
}

/// What is synced, day by day, against the user's limit.
#[derive(Serialize, ToSchema)]
#[schema(as = SimulatedQuota)]
struct QuotaView {
    /// The limit in force; null for none.
    synced_per_day: Option<u32>,
    /// What happens at the limit by this policy: `defer` or `skip`.
    #[schema(value_type = String)]
    over_sync: crate::core::policy::settings::OverSync,
    /// Messages filed, each once however often it lies in the mailboxes; without those that the CRM has anyhow.
    used: u64,
    /// Days on which the limit is met.
    days_at_limit: usize,
    /// Messages put off or left at the limit.
    over: u64,
    /// Of those put off: messages that would wait still.
    waiting: u64,
    /// Days on which mail is filed.
    days: Vec<DayView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SimulatedDay)]
struct DayView {
    /// In the workspace's time zone.
    #[schema(value_type = String, format = Date)]
    day: jiff::civil::Date,
    /// Messages filed, those put off before among them.
    synced: u64,
    /// Messages of this day that were put off or left.
    over: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SimulatedChange)]
struct ChangeView {
    from: RulingView,
    to: RulingView,
    messages: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SimulatedExample)]
struct ExampleView {
    /// When the provider took it in.
    #[schema(value_type = String, format = DateTime)]
    date: Timestamp,
    mailbox: String,
    uid: u32,
    from: RulingView,
    to: RulingView,
}

impl From<Example> for ExampleView {
    fn from(example: Example) -> Self {
        Self {
            date: example.at,
            mailbox: mailbox_name(example.mailbox.as_bytes()),
            uid: example.uid,
            from: (&example.from).into(),
            to: (&example.to).into(),
        }
    }
}

impl QuotaView {
    fn new(limit: Option<u32>, policy: &Policy, course: &Course) -> Self {
        let at_limit = |day: &&Day| limit.is_some_and(|limit| day.synced >= u64::from(limit));
        let days =
            course.days.iter().map(|day| DayView { day: day.date, synced: day.synced, over: day.over });
        Self {
            synced_per_day: limit,
            over_sync: policy.settings.over_sync,
            used: course.days.iter().map(|day| day.synced).sum(),
            days_at_limit: course.days.iter().filter(at_limit).count(),
            over: course.days.iter().map(|day| day.over).sum(),
            waiting: course.waiting,
            days: days.collect(),
        }
    }
}

impl OutcomeView {
    fn new(limit: Option<u32>, Outcome { policy, course }: &Outcome, version: Option<i64>) -> Self {
        let rules = tally(&course.rulings);
        let count = |verdict| {
            let of_it = rules.iter().filter(|(ruling, _)| ruling.verdict == verdict);
            of_it.map(|(_, messages)| messages).sum()
        };
        Self {
            preset: policy.preset.clone(),
            version,
            settings: layers::written(&policy.settings),
            synced: count(Verdict::Synced),
            skipped: count(Verdict::Skipped),
            contacts_created: course.contacts,
            synced_unless_files: course.files_unread,
            skipped_unless_reports: course.reports_unread,
            quota: QuotaView::new(limit, policy, course),
            rules: rules
                .iter()
                .map(|(ruling, messages)| RuleView {
                    ruling: ruling.into(),
                    reason: ruling.reason,
                    messages: *messages,
                })
                .collect(),
        }
    }
}

impl Simulation {
    fn new(account_id: AccountId, (days, in_force): (u16, bool), report: Report) -> Self {
        let limit = report.synced_per_day;
        let version = in_force.then_some(report.against.policy.version);
        let otherwise = report.changes.iter().filter(|((from, to), _)| from.verdict != to.verdict);
        let change = |((from, to), messages): &((Ruling, Ruling), u64)| ChangeView {
            from: from.into(),
            to: to.into(),
            messages: *messages,
        };
        Self {
            account_id,
            days,
            since: report.since,
            messages: report.messages,
            unreadable: report.unreadable,
            simulated: OutcomeView::new(limit, &report.simulated, None),
            against: OutcomeView::new(limit, &report.against, version),
            changed: otherwise.map(|(_, messages)| messages).sum(),
            changes: report.changes.iter().map(change).collect(),
            examples: report.examples.into_iter().map(ExampleView::from).collect(),
        }
    }
}

/// Simulate a policy over the last days of an account's mail: what it would sync and skip and by which rules, the contacts it
/// would make, and how much of the limit it would use, beside the policy in force or another. Headers are read from the
/// provider; nothing is stored and nothing is changed. It may take more than a minute.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/policy/simulate", tag = "policy", operation_id = "simulate_policy",
    request_body = NewSimulation, responses((status = 200, body = Simulation)))]
async fn simulate(
    State(api): State<Api>,
    access: Access,
    input: Input<NewSimulation>,
) -> Result<Json<Simulation>, Problem> {
    let NewSimulation { account_id: account, days, preset, overrides, against } = input.value;
    let days = days.unwrap_or(DAYS_DEFAULT);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Problem::invalid("days", format!("It must be a number from 1 to {DAYS_MAX}.")));
    }
    let policy = ChosenPolicy { preset, overrides }.check("")?;
    let against = against.map(|against| against.check("against.")).transpose()?;
    let found = access.read(&api).await?.account(account).await?.ok_or_else(no_account)?;
    access.act_as(found.user_id)?;
    let Some(_place) = api.simulations.take(access.workspace) else {
        return Err(Problem::limited("As many simulations are running as may.", BUSY_SECONDS));
    };
    let in_force = against.is_none();
    let order = Order { workspace: access.workspace, account, days, policy, against };
    let report = sync::simulate(&api.gateway, order).await.map_err(refused)?;
    Ok(Json(Simulation::new(account, (days, in_force), report)))
}

fn no_account() -> Problem {
    Problem::invalid("account_id", "There is no such account in this workspace.")
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NoAccount => no_account(),
        Refusal::NotWorked(AccountState::ReauthRequired) => not_worked(AccountState::ReauthRequired)
            .code("reauth_required")
            .detail("The provider refuses the account's login."),
        Refusal::NotWorked(state) => not_worked(state),
        Refusal::Resting(until) => away("The provider is left alone for now.", Some(until)),
        Refusal::Provider(trouble) => of_trouble(&trouble),
        Refusal::TooMuch => {
            let detail = format!(
                "More mail came in these days than can be simulated at once: {MESSAGES_MAX} messages."
            );
            Problem::invalid("days", detail).code("too_many_messages").advice("Ask for fewer days.")
        }
        Refusal::TooSlow => {
            let detail = "The provider took too long to show so many headers.";
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "too_slow", detail, "Ask for fewer days.").at("days")
        }
        Refusal::Store(error) => error.into(),
    }
}

fn of_trouble(trouble: &Trouble) -> Problem {
    match trouble.state() {
        AccountState::ReauthRequired => {
            Problem::conflict("reauth_required", trouble.to_string(), trouble.advice())
        }
        AccountState::Throttled => away(&trouble.to_string(), trouble.resumes_at(flow::now())),
        _ => Problem::new(StatusCode::BAD_GATEWAY, "provider_failed", trouble.to_string(), trouble.advice()),
    }
}

fn away(detail: &str, until: Option<Timestamp>) -> Problem {
    let left = until.map(|until| until.duration_since(flow::now()).as_secs().max(1));
    let seconds = left.map_or(AWAY_SECONDS, |left| u32::try_from(left).unwrap_or(u32::MAX));
    let advice = "Try again as Retry-After says; the account's status tells more.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "provider_unavailable", detail.to_owned(), advice)
        .after(seconds)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn check(refusal: Refusal, status: u16, code: &str, waits: bool) {
        let problem = refused(refusal);
        assert_eq!(
            (problem.status.as_u16(), problem.code, problem.retry_after.is_some()),
            (status, code, waits)
        );
        assert!(!problem.detail.is_empty() && !problem.advice.is_empty());
    }

    #[test]
    fn every_refusal_says_whose_turn_it_is() {
        check(Refusal::NoAccount, 422, "invalid", false);
        check(Refusal::NotWorked(AccountState::ReauthRequired), 409, "reauth_required", false);
        check(Refusal::NotWorked(AccountState::Disconnected), 409, "account_not_connected", false);
        check(Refusal::NotWorked(AccountState::Paused), 409, "account_not_connected", false);
        check(Refusal::Resting(flow::now() + Duration::from_secs(90)), 503, "provider_unavailable", true);
        check(Refusal::Provider(Trouble::Credentials("no".into())), 409, "reauth_required", false);
        let throttled = Trouble::Throttled { text: "later".into(), wait: None };
        check(Refusal::Provider(throttled), 503, "provider_unavailable", true);
        check(Refusal::Provider(Trouble::Unreachable("away".into())), 502, "provider_failed", false);
        check(Refusal::TooMuch, 422, "too_many_messages", false);
        check(Refusal::TooSlow, 504, "too_slow", false);
    }

    #[test]
    fn what_is_wrong_is_named_where_it_stands() {
        let chosen = |preset: &str, overrides: Value| {
            let Value::Object(overrides) = overrides else { panic!("an object") };
            ChosenPolicy { preset: preset.to_owned(), overrides }.check("against.").unwrap_err()
        };
        let preset = chosen("keep", serde_json::json!({}));
        assert_eq!(preset.param.as_deref(), Some("against.preset"));
        assert!(preset.detail.contains("the nearest is \"keap\""), "{}", preset.detail);
        let setting = chosen("keap", serde_json::json!({ "mach": "all" }));
        assert_eq!(setting.param.as_deref(), Some("against.overrides.mach"));
        assert!(setting.detail.contains("nearest is \"match\""), "{}", setting.detail);
    }
}
