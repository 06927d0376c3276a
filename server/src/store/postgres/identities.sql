-- Identities of clients: new in layout 3. They are the relay's own, and belong to no task.

CREATE TABLE unsaid.identities (
    id bytea PRIMARY KEY,
    public_key bytea NOT NULL,
    invited boolean NOT NULL,
    enrolled_ms bigint NOT NULL,
    revoked_ms bigint
);

-- Of an invitation only the hash is kept, with the identity that used it.
CREATE TABLE unsaid.invitations (
    hash bytea PRIMARY KEY,
    used_by bytea
);

-- How many there are: whoever enrols, revokes or invites holds this row's lock, so that no bound is passed by two at once.
CREATE TABLE unsaid.census (
    enrolled bigint NOT NULL,
    revoked bigint NOT NULL,
    uninvited bigint NOT NULL,
    invitations bigint NOT NULL
);
INSERT INTO unsaid.census VALUES (0, 0, 0, 0);

-- What a task counted of an identity (store/identities.rs, `Account`).
CREATE TABLE unsaid.accounts (
    task text NOT NULL,
    identity bytea NOT NULL,
    account bytea NOT NULL,
    PRIMARY KEY (identity, task)
);
