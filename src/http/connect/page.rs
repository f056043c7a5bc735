//! What users see who connect an account: plain pages without scripts, each saying what happened and what to do.
//!
//! Not here: when which is shown.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use url::Url;

use crate::{
    core::{people::User, provider::Provider},
    mail::{Address, sanitise::escape},
};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;background:#f4f5f7;color:#1d2330}\
main{max-width:34rem;margin:8vh auto;padding:2rem;background:#fff;border-radius:12px}\
h1{font-size:1.35rem;margin:0 0 1rem}ul{padding-left:1.2rem}form{margin:1rem 0 0}\
button{font:inherit;width:100%;padding:.8rem;border:0;border-radius:8px;background:#2456c9;color:#fff;cursor:pointer}\
button:focus-visible{outline:3px solid #9db8f2}small{color:#5b6475}";

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// One of the pages.
#[derive(Debug)]
pub(super) struct Page {
    status: StatusCode,
    title: &'static str,
    /// HTML.
    body: String,
    /// Where the browser goes by itself, as HTML.
    onward: Option<String>,
}

impl Page {
    fn new(status: StatusCode, title: &'static str, lines: &[&str]) -> Self {
        let body = lines.iter().map(|line| format!("<p>{}</p>", escape(line))).collect();
        Self { status, title, body, onward: None }
    }

    /// Sends the user on to his provider. By a page and not by a redirect: browsers hold a form to where its page lets it lead, and
    /// nobody knows through which addresses a provider leads its users.
    pub(super) fn onward(to: &Url) -> Self {
        let mut page = Self::new(StatusCode::OK, "On to your provider", &[]);
        let to = escape(to.as_str());
        page.body = format!("<p><a href=\"{to}\">Go on if nothing happens</a></p>");
        page.onward = Some(to);
        page
    }

    pub(super) fn connected(email: &Address) -> Self {
        let line = format!("{email} is connected. You can close this page; nothing else is to be done.");
        Self::new(StatusCode::OK, "Your account is connected", &[&line])
    }

    pub(super) fn used() -> Self {
        Self::new(
            StatusCode::GONE,
            "This link has been used",
            &["An account was connected by it. If it was not you, tell your administrator.", ASK_FOR_ANOTHER],
        )
    }

    pub(super) fn gone() -> Self {
        let line = "It has expired, or the address is not complete: open it as it was sent to you.";
        Self::new(StatusCode::NOT_FOUND, "This link does not lead anywhere", &[line, ASK_FOR_ANOTHER])
    }

    pub(super) fn over() -> Self {
        let line = "It took too long, or was taken up already. Nothing was connected by it.";
        Self::new(StatusCode::BAD_REQUEST, "This sign-in is over", &[line, OPEN_AGAIN])
    }

    pub(super) fn elsewhere() -> Self {
        let line = "A sign-in has to end in the browser in which it was begun. Nothing was connected.";
        Self::new(StatusCode::FORBIDDEN, "This was begun somewhere else", &[line, OPEN_AGAIN])
    }

    pub(super) fn declined() -> Self {
        let line = "You did not allow the access, so nothing was connected.";
        Self::new(StatusCode::OK, "Nothing was connected", &[line, OPEN_AGAIN])
    }

    pub(super) fn narrowed(refused: &[&str]) -> Self {
        let line = format!(
            "Without these permissions the mailbox cannot be read or sent from: {}. Nothing was connected.",
            refused.join(", ")
        );
        let what = "Leave every box ticked when the provider asks you.";
        Self::new(StatusCode::OK, "Some permissions are missing", &[&line, what, OPEN_AGAIN])
    }

    pub(super) fn somebody_else(signed_in: &Address, user: &User) -> Self {
        let line =
            format!("You signed in as {signed_in}. This link is for {}. Nothing was connected.", user.email);
        let what = "Sign in with that address. If the other is yours as well, ask your administrator to add it to you first.";
        Self::new(StatusCode::OK, "That is another address", &[&line, what, OPEN_AGAIN])
    }

    pub(super) fn taken() -> Self {
        let line = "The address is connected for somebody else, or was erased. Nothing was changed.";
        Self::new(
            StatusCode::CONFLICT,
            "This address cannot be connected",
            &[line, "Ask your administrator."],
        )
    }

    pub(super) fn not_allowed() -> Self {
        let line = "The policy of your workspace does not let you connect accounts.";
        Self::new(StatusCode::FORBIDDEN, "You may not connect accounts", &[line, "Ask your administrator."])
    }

    pub(super) fn excluded(title: &str) -> Self {
        let line =
            format!("The policy of your workspace leaves out accounts at {title}. Nothing was connected.");
        let what = "Connect a mailbox at another provider, or ask your administrator.";
        Self::new(StatusCode::FORBIDDEN, "Accounts at this provider are left out", &[&line, what])
    }

    pub(super) fn no_servers() -> Self {
        let line = "Nobody has told this gateway where the provider's mail servers are.";
        Self::new(StatusCode::BAD_GATEWAY, "Nothing was connected", &[line, "Ask your administrator."])
    }

    /// The provider refused, or said something that is not to be trusted.
    pub(super) fn refused() -> Self {
        let line = "The provider did not confirm the sign-in. Nothing was connected.";
        Self::new(StatusCode::BAD_GATEWAY, "The sign-in did not work", &[line, OPEN_AGAIN])
    }

    pub(super) fn unavailable() -> Self {
        let line = "The gateway cannot do this at the moment. Nothing was connected.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "Please try again in a minute", &[line])
    }
}

const ASK_FOR_ANOTHER: &str = "Whoever sent it to you can send another.";
const OPEN_AGAIN: &str = "Open the link that you were sent once more to try again.";

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let Self { status, title, body, onward } = self;
        let refresh = |to: String| format!("<meta http-equiv=\"refresh\" content=\"0;url={to}\">");
        let onward = onward.map(refresh).unwrap_or_default();
        let html = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width,initial-scale=1\">{onward}<title>{title}</title><style>{STYLE}</style></head>\
             <body><main><h1>{title}</h1>{body}</main></body></html>"
        );
        let headers = [
            (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (status, headers, Html(html)).into_response()
    }
}

/// What the user is asked.
pub(super) struct Asking {
    pub workspace: String,
    pub user: User,
    /// The mailbox of several people that he is to connect in place of his own.
    pub mailbox: Option<Address>,
    /// Providers by name, with what users call them.
    pub offered: Vec<(String, String)>,
    /// The page's own path.
    pub action: String,
}

impl Asking {
    pub(super) fn page(self) -> Page {
        let Self { workspace, user, mailbox, offered, action } = self;
        let (title, asked) = match mailbox {
            None => ("Connect your mailbox", format!("the mailbox of {}", user.email)),
            Some(mailbox) => (
                "Connect a shared mailbox",
                format!("the mailbox {mailbox}; for that you sign in as yourself, {}", user.email),
            ),
        };
        let line = format!("{workspace} asks to work with {asked}. It will be able to:");
        let mut page = Page::new(StatusCode::OK, title, &[&line]);
        page.body.push_str(
            "<ul><li>see new mail in the mailbox, and keep what concerns the workspace's contacts</li>\
             <li>send mail as you, when you send from the CRM</li></ul>\
             <p><small>Everything else is not stored. You can take the permission back at your provider at any time.</small></p>",
        );
        if offered.is_empty() {
            page.body.push_str("<p>There is no provider to sign in at. Ask your administrator.</p>");
        }
        for (name, title) in &offered {
            page.body.push_str(&format!(
                "<form method=\"post\" action=\"{}/{}\"><button>Sign in with {}</button></form>",
                escape(&action),
                escape(name),
                escape(title)
            ));
            if let Some(notice) = Provider::named(name).and_then(|provider| provider.notice.as_deref()) {
                page.body.push_str(&format!("<p><small>{}</small></p>", escape(notice)));
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keap_4_where_a_user_is_to_sign_in_he_reads_what_works_there() {
        let user = User {
            id: crate::store::mint(),
            email: Address::parse("ann@acme.example").unwrap(),
            name: None,
            aliases: Vec::new(),
            role: crate::core::people::Role::Member,
            capture_address: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let offered = ["google", "microsoft"].map(|name| (name.to_owned(), name.to_owned())).to_vec();
        let html = Asking { workspace: "Acme".into(), user, mailbox: None, offered, action: "/x".into() }
            .page()
            .body;
        let (_, after) = html.split_once("Sign in with microsoft</button></form>").unwrap();
        assert!(
            after.starts_with("<p><small>This works only for mailboxes that Microsoft itself hosts"),
            "{html}"
        );
        assert_eq!(html.matches("works only").count(), 1);
    }

    #[test]
    fn what_others_have_written_is_text_on_a_page() {
        let html = Page::narrowed(&["<script>alert(1)</script>", "a\"b'c&d"]).body;
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;, a&quot;b&#39;c&amp;d"), "{html}");
    }
}
