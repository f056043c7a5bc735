//! The OpenAPI 3.1 document, and the page that shows it.
//!
//! Handlers say what they take and give; what holds for all of them is added here from the table of routes: path
//! parameters, the `Idempotency-Key`, the key and scope that are needed, and the shape of problems.

use axum::Router;
use serde_json::{Map, Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::{
    Api, access,
    problem::ProblemBody,
    route::{self, Need},
};

const DOCUMENT_PATH: &str = "/openapi.json";
const PAGE_PATH: &str = "/docs";
/// The name of the security scheme.
const KEY: &str = "key";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Mailweave",
        description = "A gateway between a CRM, its users' own mailboxes and the outside world."
    ),
    components(schemas(ProblemBody)),
    modifiers(&Keys)
)]
struct Document;

struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A key of the workspace (`mwk_…`) or the instance administrator's."));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(KEY, SecurityScheme::Http(scheme.build()));
    }
}

/// An empty router that collects the document.
pub(super) fn start() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
}

/// Serves the document and the page.
pub(super) fn pages(document: &utoipa::openapi::OpenApi) -> Router<Api> {
    let document = complete(document);
    SwaggerUi::new(PAGE_PATH).external_url_unchecked(DOCUMENT_PATH, document).into()
}

/// The document with what holds for every route.
fn complete(document: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).expect("the document has text keys alone");
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                complete_operation(path, method, operation);
            }
        }
    }
    document
}

fn complete_operation(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let route = method.to_ascii_uppercase().parse().ok().and_then(|method| route::find(&method, path));
    let Some(route) = route else { return };
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        add_parameters(path, method, parameters);
    }
    let need = match route.need {
        Need::Scope(scope) => format!("Needs the scope `{}`.", access::word(scope)),
        Need::Instance => "Needs the instance administrator's key.".to_owned(),
    };
    let description = operation.get("description").and_then(Value::as_str);
    let description = description.map_or_else(|| need.clone(), |text| format!("{text}\n\n{need}"));
    operation.insert("description".into(), description.into());
    operation.insert("security".into(), json!([{ KEY: [] }]));
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    if let Some(responses) = responses.as_object_mut() {
        responses.insert("default".into(), problem());
    }
}

fn add_parameters(path: &str, method: &str, parameters: &mut Vec<Value>) {
    for name in path.split(['{', '}']).skip(1).step_by(2) {
        let description = match name {
            "ws" => "The workspace: its id or slug.",
            "external_id" => "The CRM's own id for the contact.",
            "attachment" => "The attachment's id.",
            _ => "The id.",
        };
        parameters.push(json!({
            "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" },
        }));
    }
    if method == "post" && path != route::SIMULATE {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "At most 255 characters. The same key with the same body repeats the answer; with another it is refused (409).",
            "schema": { "type": "string", "maxLength": 255 },
        }));
    }
}

fn problem() -> Value {
    json!({
        "description": "A problem (RFC 9457).",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    })
}

/// Words of the API, as the document lists them; the types they stand for live in `core`.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident as $shown:ident: $($variant:ident)+;)+) => {
        $(
            $(#[$doc])*
            #[derive(utoipa::ToSchema)]
            #[schema(as = $shown, rename_all = "snake_case")]
            #[expect(dead_code, reason = "only its schema is used")]
            pub(super) enum $name { $($variant),+ }
        )+
    };
}

words! {
    ScopeWord as Scope: Read Write Send Smtp Admin;
    RoleWord as Role: Member Admin;
    CreatedByWord as CreatedBy: Api Import Capture Sent Exchange;
    SecurityWord as Security: Tls Starttls None;
    FoundByWord as FoundBy: Given Provider Srv Autoconfig Mx Guess;
    AccountStateWord as AccountState: Connecting AwaitingFirstMail Active Backfilling Throttled Error ReauthRequired
        Stopped WaitingForQuota Paused Disconnected Erasing Erased;
    SourceWord as PolicySource: Default Preset Workspace User;
    VerdictWord as Verdict: Synced Skipped Deferred Held;
    LevelWord as EvidenceLevel: E0 E1 E2 E3 E4;
    MarkWord as VerificationMark: NewSendingRoute NotSigned ColleaguesAddress Unverified Released;
    QuarantineStateWord as QuarantineState: Checking Held Released Rejected Expired;
    DirectionWord as Direction: Inbound Outbound Internal;
    KindWord as Kind: Mail AutoReply Bounce Invitation Forward;
    ContactRoleWord as ContactRole: From To Cc Bcc;
    AuthorRoleWord as AuthorRole: User Contact Other;
    ViaWord as Via: Capture Submission Api Account Reply;
    SubmissionStateWord as SubmissionState: Queued Sending Sent Deferred Uncertain Bounced Held Cancelled;
    ClassWord as SendClass: Individual Bulk Workflow;
    SentUnitWord as SentUnit: Recipients Messages;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::{ROUTES, health, resources};

    fn document() -> Value {
        let (_, mut document) = resources().split_for_parts();
        document.merge(health::router().into_openapi());
        complete(&document)
    }

    #[test]
    fn every_route_declares_what_it_takes_and_every_declaration_is_a_route() {
        let document = document();
        let mut served = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                served.insert((path.clone(), method.to_ascii_uppercase()));
            }
        }
        let mut declared: BTreeSet<_> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_string())).collect();
        assert_eq!(declared.len(), ROUTES.len(), "a route is declared twice");
        declared.extend(["/healthz", "/readyz", "/metrics"].map(|path| (path.to_owned(), "GET".to_owned())));
        assert_eq!(served, declared);
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let references: BTreeSet<&str> =
            text.split("\"$ref\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert!(references.len() > 10, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn operations_have_their_path_parameters_and_names_of_their_own() {
        let document = document();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{method} {path}: {name} is taken");
                let given: BTreeSet<&str> = operation["parameters"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|parameter| parameter["in"] == "path")
                    .map(|parameter| parameter["name"].as_str().unwrap())
                    .collect();
                let wanted: BTreeSet<&str> = path.split(['{', '}']).skip(1).step_by(2).collect();
                assert_eq!(given, wanted, "{method} {path}");
            }
        }
    }
}
