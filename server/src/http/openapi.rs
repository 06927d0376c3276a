//! `GET /v1/openapi.json`: the API's description (OpenAPI 3.1), made from the routes themselves: what is not described is not routed
//! below `/v1`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Bytes, extract::State, http::header, response::IntoResponse};
use unsaid_protocol::{Problem, ProblemKind};
use utoipa::{
    IntoResponses, PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
        Ref, RefOr, Response, ResponseBuilder, Type,
        schema::{AllOfBuilder, ComponentsBuilder, KnownFormat, Schema, SchemaFormat},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use crate::relay::Relay;

/// The description without its routes.
pub(super) fn head() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Unsaid relay")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "What clients and operators say to a relay. PROTOCOL.md is normative. Every answer below `/v1` but 200 and 304 is a problem \
             document (RFC 9457) whose `type` is stable.",
        ))
        .license(Some(
            LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build(),
        ));
    let components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .security_scheme(
            "operator",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
    OpenApiBuilder::new()
        .info(info.build())
        .components(Some(components.build()))
        .build()
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "relay", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"), Refusals<Nothing>,
))]
pub(super) async fn openapi(State(relay): State<Arc<Relay>>) -> impl IntoResponse {
    let describe = || {
        let described = super::described(&relay);
        // A description holds strings, lists and maps with strings for keys: none of that fails.
        Bytes::from(serde_json::to_vec(&described).unwrap_or_default())
    };
    let bytes = relay.description.get_or_init(describe).clone();
    ([(header::CONTENT_TYPE, "application/json")], bytes)
}

/// Bytes that are no text.
pub(super) struct Binary;

impl PartialSchema for Binary {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
            .into()
    }
}

impl ToSchema for Binary {}

/// One server-sent event.
#[derive(ToSchema)]
#[schema(as = Event)]
#[expect(dead_code, reason = "only its description is used")]
pub(super) struct EventForm {
    /// `round`, `published` or `evaluated`; clients pass over others.
    event: String,
    /// JSON: a `RoundState` for `round`, else `RoundMetrics`.
    data: String,
    /// Milliseconds after which to connect again.
    retry: u32,
}

/// What a route may refuse, beside what every route does.
pub(super) trait Kinds {
    const KINDS: &'static [ProblemKind];
}

/// The problem documents of a route.
pub(super) struct Refusals<K>(std::marker::PhantomData<K>);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: [$($kind:ident),*];)+) => {$(
        $(#[$doc])*
        pub(super) struct $name;
        impl Kinds for $name {
            const KINDS: &'static [ProblemKind] = &[$(ProblemKind::$kind),*];
        }
    )+};
}

kinds! {
    /// No more than any route.
    Nothing: [];
    /// The path names a task.
    OfTask: [NotFound, Malformed];
    /// Something is read from the store.
    OfStore: [NotFound, Malformed, Unavailable];
    /// A check-in.
    OfCheckIn: [
        NotFound, Malformed, TooLarge, ContentType, WrongManifest, IdentityRequired, IdentityUnknown, IdentityRevoked, BadSignature,
        EnrolmentClosed, QuotaSpent, RelayBudgetSpent, Unavailable
    ];
    /// An update.
    OfUpdate: [
        NotFound, Malformed, Version, TooLarge, ContentType, WrongManifest, WrongModel, WrongRound, RoundClosed, UpdateConflict,
        AlreadyReported, NotCheckedIn, Unacceptable, IdentityRequired, IdentityUnknown, IdentityRevoked, BadSignature,
        EnrolmentClosed, QuotaSpent, RelayBudgetSpent, Unavailable
    ];
    /// What a client must know before it signs.
    OfIdentities: [NotFound];
    /// A key asks to be known.
    OfEnrolment: [
        NotFound, Malformed, TooLarge, ContentType, IdentityRevoked, BadSignature, BadInvitation, EnrolmentClosed, EnrolmentLimited,
        Unavailable
    ];
    /// The operator invites.
    OfInvitations: [Unauthorized, NotFound, Malformed, TooLarge, ContentType, Unavailable];
    /// The operator looks who is enrolled.
    OfListing: [Unauthorized, NotFound, Malformed, Unavailable];
    /// The operator revokes.
    OfRevocation: [Unauthorized, NotFound, Malformed, Unavailable];
    /// The relay's figures.
    OfMetrics: [Unauthorized];
    /// Readiness.
    OfReadiness: [Unavailable];
    /// The operator looks.
    OfStatus: [Unauthorized, Unavailable];
    /// The operator pauses or resumes.
    OfPause: [Unauthorized, NotFound, Malformed, Unavailable];
    /// The operator goes back.
    OfRollback: [Unauthorized, NotFound, Malformed, TooLarge, ContentType, NotPaused, Unavailable];
    /// The operator adds a task.
    OfAdding: [Unauthorized, NotFound, Malformed, TooLarge, ContentType, TaskExists, Unavailable];
}

impl<K: Kinds> IntoResponses for Refusals<K> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let always = [
            ProblemKind::MethodNotAllowed,
            ProblemKind::TooManyRequests,
            ProblemKind::Internal,
        ];
        let mut by_status: BTreeMap<String, Vec<ProblemKind>> = BTreeMap::new();
        for &kind in K::KINDS.iter().chain(&always) {
            by_status.entry(kind.status().to_string()).or_default().push(kind);
        }
        let described = by_status.into_iter();
        described
            .map(|(status, kinds)| (status, problem(&kinds).into()))
            .collect()
    }
}

/// An answer that is a problem of one of these kinds, all of one status.
fn problem(kinds: &[ProblemKind]) -> Response {
    let types = ObjectBuilder::new().schema_type(Type::String);
    let types = types.enum_values(Some(kinds.iter().map(|kind| kind.urn())));
    let document = AllOfBuilder::new()
        .item(Ref::from_schema_name(Problem::name()))
        .item(
            ObjectBuilder::new()
                .schema_type(Type::Object)
                .property("type", types),
        );
    let content = ContentBuilder::new().schema(Some(document)).build();
    let titles: Vec<&str> = kinds.iter().map(|kind| kind.title()).collect();
    let mut response = ResponseBuilder::new()
        .description(titles.join("; "))
        .content("application/problem+json", content);
    if kinds.iter().any(|kind| kind.is_temporary()) {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        let wait = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds to wait, where waiting helps"));
        response = response.header("retry-after", wait.build());
    }
    if kinds.iter().any(|kind| kind.status() == 401) {
        let scheme = HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String)));
        response = response.header("www-authenticate", scheme.build());
    }
    response.build()
}
