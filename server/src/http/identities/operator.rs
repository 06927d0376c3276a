//! The operator's routes for identities: invitations, the list, revocation.

use std::sync::Arc;

use axum::{
    Json,
    body::Body,
    extract::{OriginalUri, Path, State},
    http::HeaderMap,
};
use serde::Serialize;
use unsaid_document::{Document, Fields, Value};
use unsaid_privacy::Cost;
use unsaid_protocol::{Enrolment, IdentityId, Invitation, ProblemKind, TaskId};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    admin::Whole,
    body,
    openapi::{OfInvitations, OfListing, OfRevocation, Refusals},
    problem::Refused,
};
use crate::{identity::USUAL_DELTA, relay::Relay, store::Listed};

/// The most invitations that are made at once.
const MOST_INVITATIONS: u64 = 1_000;

/// Identities on one page of the list.
const PAGE: u32 = 500;

/// The routes, without the check of the operator's token.
pub(in crate::http) fn routes() -> OpenApiRouter<Arc<Relay>> {
    OpenApiRouter::new()
        .routes(routes!(invite))
        .routes(routes!(list))
        .routes(routes!(revoke))
}

/// How many invitations to make.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Invite {
    /// From 1 to 1,000.
    #[schema(minimum = 1, maximum = 1000)]
    count: u64,
}

impl Document for Invite {
    fn read(document: Value) -> Result<Self, String> {
        let mut fields = Fields::of(document)?;
        let invite = Self {
            count: fields.required::<Whole>("count").0,
        };
        fields.finish()?;
        if (1..=MOST_INVITATIONS).contains(&invite.count) {
            Ok(invite)
        } else {
            Err(format!(
                "count is {}, but must be from 1 to {MOST_INVITATIONS}",
                invite.count
            ))
        }
    }
}

/// Invitations. They are told once: the relay keeps their hashes.
#[derive(Debug, Serialize, ToSchema)]
struct Invited {
    invitations: Vec<Invitation>,
}

/// Makes invitations, each of which is good for one key.
#[utoipa::path(post, path = "/v1/admin/invitations", tag = "operator", security(("operator" = [])),
    request_body(content = Invite, description = "At most 4,096 bytes, within 10 s"),
    responses((status = 200, description = "On disk, as hashes", body = Invited), Refusals<OfInvitations>),
    extensions(("x-max-bytes" = json!(body::MAX_JSON_BYTES))),
)]
async fn invite(
    State(relay): State<Arc<Relay>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Invited>, Refused> {
    let Invite { count } = body::read_json(&headers, body).await?;
    let draw = || {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map(|()| Invitation::from_bytes(bytes))
    };
    let drawn: Result<Vec<_>, _> = (0..count).map(|_| draw()).collect();
    let invitations = drawn.map_err(|error| {
        tracing::error!(%error, "the operating system gives no random numbers");
        Refused::internal()
    })?;
    let hashes: Vec<_> = invitations.iter().map(Invitation::hash).collect();
    relay
        .with_registry(move |registry| registry.invite(&hashes))
        .await?;
    tracing::info!(count, "invitations were made by the operator");
    Ok(Json(Invited { invitations }))
}

/// An identity, as the operator sees it.
#[derive(Debug, Serialize, ToSchema)]
struct Entry {
    identity: IdentityId,
    enrolment: Enrolment,
    enrolled_ms: u64,
    revoked_ms: Option<u64>,
    /// What all tasks counted of it.
    total: Total,
    tasks: Vec<Part>,
}

/// Updates, and what they cost.
#[derive(Debug, Serialize, ToSchema)]
struct Total {
    /// Updates that were counted.
    updates: u64,
    /// What they cost, at `delta`; none where any of them had no noise, or they cost more than numbers hold.
    epsilon: Option<f64>,
    delta: f64,
}

impl Total {
    fn of(updates: u64, cost: Cost, delta: f64) -> Self {
        let epsilon = cost.epsilon(delta).ok();
        Self {
            updates,
            epsilon: epsilon.filter(|epsilon| epsilon.is_finite()),
            delta,
        }
    }
}

/// What one task counted of an identity.
#[derive(Debug, Serialize, ToSchema)]
struct Part {
    task: TaskId,
    #[serde(flatten)]
    total: Total,
}

/// A page of the list.
#[derive(Debug, Serialize, ToSchema)]
struct Page {
    identities: Vec<Entry>,
    /// Where the next page begins; none on the last.
    after: Option<IdentityId>,
}

/// Every identity, in the order of their ids, page by page.
#[utoipa::path(get, path = "/v1/admin/identities", tag = "operator", security(("operator" = [])),
    params(("after" = Option<IdentityId>, Query, description = "The last id of the page before")),
    responses((status = 200, description = "At most 500 identities", body = Page), Refusals<OfListing>),
)]
async fn list(State(relay): State<Arc<Relay>>, OriginalUri(uri): OriginalUri) -> Result<Json<Page>, Refused> {
    let mut parts = uri.query().unwrap_or_default().split('&');
    let after = parts.find_map(|part| part.strip_prefix("after="));
    let after: Option<IdentityId> = after
        .map(str::parse)
        .transpose()
        .map_err(|error| Refused::new(ProblemKind::Malformed, format!("after: {error}")))?;
    let listed = relay
        .with_registry(move |registry| registry.identities(after.as_ref(), PAGE))
        .await?;
    let after = listed
        .last()
        .filter(|_| listed.len() == PAGE as usize)
        .map(|last| last.id);
    let identities = listed.into_iter().map(|one| entry(&relay, one)).collect();
    Ok(Json(Page { identities, after }))
}

fn entry(
    relay: &Relay,
    Listed {
        id,
        identity,
        accounts,
    }: Listed,
) -> Entry {
    let part = |(task, account): (TaskId, crate::store::Account)| {
        let rules = relay.handle(&task).and_then(|task| task.config.identity);
        let delta = rules.map_or(USUAL_DELTA, |rules| rules.delta);
        Part {
            task,
            total: Total::of(account.updates, account.cost, delta),
        }
    };
    let nothing = (0_u64, Cost::NOTHING);
    let (updates, cost) = accounts.iter().fold(nothing, |(updates, cost), (_, account)| {
        (updates.saturating_add(account.updates), cost + account.cost)
    });
    Entry {
        identity: id,
        enrolment: identity.enrolment(),
        enrolled_ms: identity.enrolled_ms,
        revoked_ms: identity.revoked_ms,
        total: Total::of(updates, cost, USUAL_DELTA),
        tasks: accounts.into_iter().map(part).collect(),
    }
}

/// An identity that was revoked.
#[derive(Debug, Serialize, ToSchema)]
struct Revoked {
    identity: IdentityId,
    revoked_ms: u64,
}

/// Revokes an identity, for good: nothing more of it is counted. What was acknowledged stays counted.
#[utoipa::path(post, path = "/v1/admin/identities/{identity}/revoke", tag = "operator", security(("operator" = [])),
    params(("identity" = IdentityId, Path, description = "The identity's id")),
    responses((status = 200, description = "On disk", body = Revoked), Refusals<OfRevocation>),
)]
async fn revoke(
    State(relay): State<Arc<Relay>>,
    Path(identity): Path<String>,
) -> Result<Json<Revoked>, Refused> {
    let unknown = || Refused::new(ProblemKind::NotFound, "this relay knows no such identity");
    let id: IdentityId = identity.parse().map_err(|_| unknown())?;
    let now_ms = relay.shared_now_ms();
    let found = relay.with_registry(move |registry| registry.revoke(&id, now_ms));
    let revoked_ms = found.await?.and_then(|identity| identity.revoked_ms);
    let revoked_ms = revoked_ms.ok_or_else(unknown)?;
    tracing::info!(identity = %id, "revoked by the operator");
    Ok(Json(Revoked {
        identity: id,
        revoked_ms,
    }))
}
