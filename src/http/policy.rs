//! What syncs and how: the policy of the workspace and of each user, with where each value comes from.
//!
//! Not here: what the settings mean (`core::policy`). A change holds for the next message.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, PathId},
    openapi::SourceWord,
    problem::Problem,
};
use crate::{
    core::{
        allowance::Allowance,
        ids::UserId,
        policy::{BadSetting, Choice, Choices, DEFAULT_PRESET, Overrides, Source, layers},
    },
    flow,
    store::{Session, Tx},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(show, put)).routes(routes!(show_users, put_users))
}

/// The policy that applies.
#[derive(Serialize, ToSchema)]
#[schema(as = Policy)]
struct PolicyView {
    #[schema(example = "mailweave")]
    preset: String,
    /// Who chose the preset.
    #[schema(value_type = SourceWord)]
    preset_from: Source,
    /// Raised by every change of policy in the workspace. Decisions name the version that they were made by.
    version: i64,
    /// Every setting, by its name.
    settings: BTreeMap<String, SettingView>,
    /// The settings chosen here: on the workspace's policy by the workspace, on a user's by the user.
    #[schema(value_type = Object)]
    overrides: Map<String, Value>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Setting)]
struct SettingView {
    #[schema(value_type = Value)]
    value: Value,
    /// Where the value comes from.
    #[schema(value_type = SourceWord)]
    from: Source,
}

fn view(choices: Choices, own: fn(Choices) -> Choice) -> Result<PolicyView, Problem> {
    // What is stored was checked; what cannot be read any more is our fault.
    let effective = choices.effective().map_err(|_| Problem::internal())?;
    let values = layers::written(&effective.settings);
    let settings = values.into_iter().filter_map(|(name, value)| {
        let from = *effective.from.get(&name)?;
        Some((name, SettingView { value, from }))
    });
    let settings = settings.collect();
    let (preset, preset_from) = choices.preset();
    let (preset, version) = (preset.to_owned(), choices.version);
    let overrides = own(choices).overrides.settings().clone();
    Ok(PolicyView { preset, preset_from, version, settings, overrides })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPolicy {
    /// Left out, a workspace has `mailweave`, and a user what his workspace has.
    #[schema(example = "keap")]
    preset: Option<String>,
    /// Settings with values of their own, in place of all that were chosen here before.
    #[serde(default)]
    #[schema(value_type = Object, example = json!({ "backfill_days": 7 }))]
    overrides: Map<String, Value>,
}

impl NewPolicy {
    fn check(self) -> Result<Choice, Problem> {
        let overrides = Overrides::new(self.overrides).map_err(|bad| refused(&bad))?;
        Ok(Choice { preset: self.preset, overrides })
    }
}

/// Whether this can be chosen here: nothing that we send or divert may come to an address of ours.
fn check(api: &Api, chosen: &Choices) -> Result<(), Problem> {
    chosen.check().map_err(|bad| refused(&bad))?;
    let settings = chosen.effective().map_err(|bad| refused(&bad))?.settings;
    let Some(name) = settings.loops(&api.gateway.settings.ours) else { return Ok(()) };
    let reason = "names an address of the gateway itself, and mail sent there would come back for ever: name one that somebody \
         reads elsewhere";
    Err(refused(&BadSetting::Value { name: name.to_owned(), reason: reason.to_owned() }))
}

/// A policy that cannot be, with the field at fault.
pub(super) fn refused(bad: &BadSetting) -> Problem {
    let param = bad.setting().map_or_else(|| "preset".to_owned(), |name| format!("overrides.{name}"));
    Problem::invalid(param, bad.to_string())
}

/// Show the workspace's policy.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/policy", tag = "policy", operation_id = "get_policy",
    responses((status = 200, body = PolicyView)))]
async fn show(State(api): State<Api>, access: Access) -> Result<Json<PolicyView>, Problem> {
    let choices = access.read(&api).await?.policy_choices(None).await?;
    Ok(Json(view(choices, |choices| choices.workspace)?))
}

/// Choose the workspace's policy: a preset, and the settings that are to differ from it. It holds for the next message. The
/// preset's limits hold as well, as far as no others are set.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/policy", tag = "policy", operation_id = "put_policy",
    request_body = NewPolicy, responses((status = 200, body = PolicyView)))]
async fn put(
    State(api): State<Api>,
    access: Access,
    input: Input<NewPolicy>,
) -> Result<Json<PolicyView>, Problem> {
    access.act_for_all()?;
    let workspace = input.value.check()?;
    let preset = workspace.preset.as_deref().unwrap_or(DEFAULT_PRESET).to_owned();
    let chosen = Choices { workspace, ..Choices::default() };
    check(&api, &chosen)?;
    let mut tx = access.begin(&api).await?;
    let before = tx.allowance(None).await?;
    tx.set_policy(&preset, &chosen.workspace.overrides).await?;
    note_limits(&mut tx, None, before).await?;
    let choices = tx.policy_choices(None).await?;
    tx.commit().await?;
    Ok(Json(view(choices, |choices| choices.workspace)?))
}

/// A preset brings its limits along: what waits for other ones is looked at again.
async fn note_limits(tx: &mut Tx, user: Option<UserId>, before: Allowance) -> Result<(), Problem> {
    if tx.allowance(user).await? != before {
        flow::limits::changed(tx, user, flow::now()).await?;
    }
    Ok(())
}

async fn choices_of(session: &mut Session, user: UserId) -> Result<Choices, Problem> {
    session.user(user).await?.ok_or_else(Problem::not_found)?;
    Ok(session.policy_choices(Some(user)).await?)
}

/// Show a user's policy: the workspace's, with what was chosen for him.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/users/{id}/policy", tag = "policy",
    operation_id = "get_user_policy", responses((status = 200, body = PolicyView)))]
async fn show_users(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
) -> Result<Json<PolicyView>, Problem> {
    let choices = choices_of(&mut access.read(&api).await?, id).await?;
    Ok(Json(view(choices, |choices| choices.user)?))
}

/// Choose a user's policy: another preset than the workspace's, settings that are to differ, or both. It holds for the next
/// message.
#[utoipa::path(put, path = "/v1/workspaces/{ws}/users/{id}/policy", tag = "policy",
    operation_id = "put_user_policy", request_body = NewPolicy, responses((status = 200, body = PolicyView)))]
async fn put_users(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<UserId>,
    input: Input<NewPolicy>,
) -> Result<Json<PolicyView>, Problem> {
    let mut tx = access.begin(&api).await?;
    let before = choices_of(&mut tx, id).await?;
    access.act_for_all()?;
    let chosen = Choices { user: input.value.check()?, ..before };
    check(&api, &chosen)?;
    let limits = tx.allowance(Some(id)).await?;
    tx.set_user_policy(id, &chosen.user).await?;
    note_limits(&mut tx, Some(id), limits).await?;
    let choices = tx.policy_choices(Some(id)).await?;
    tx.commit().await?;
    Ok(Json(view(choices, |choices| choices.user)?))
}
