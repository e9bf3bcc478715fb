//! What every service asks before it answers: who is this, and may they?
//!
//! While authorization is off, each question is one relaxed load. Otherwise a read is judged after
//! its barrier and before it looks at anything, and once it has read, [`Services::still`] finds out
//! whether the rules have changed meanwhile: rules are in force before what comes after them can be
//! read. Writes are judged where they are applied, in the name of whoever [`Services::credentials`]
//! finds.

use holdfast_store::Reader;
use holdfast_store::auth::{Access, AuthRefusal};
use holdfast_store::command::Credentials;

use crate::services::Services;
use crate::status::Error;

use super::{Caller, Tokens, jwt, simple};

/// A permission to read, as long as nothing changes.
#[must_use = "what was read may only be shown if it still holds"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Authorization was off.
    Open,
    /// By the rules of this auth revision.
    At(u64),
}

/// Says whether a caller may have access.
pub type Judge<'a> = &'a dyn Fn(&Access<'_>) -> Result<(), AuthRefusal>;

impl Services {
    /// Who a request says it comes from; not looked at while authorization is off.
    pub fn caller<B>(&self, request: &http::Request<B>) -> Caller {
        if self.reader.auth_enabled() { Caller::of(request) } else { Caller::Anonymous }
    }

    /// In whose name a caller's commands are carried out: none while authorization is off, or when
    /// the caller says nothing of itself, which nearly every command is refused for.
    pub async fn credentials(&self, caller: &Caller) -> Result<Option<Credentials>, Error> {
        if !self.reader.auth_enabled() {
            return Ok(None);
        }
        // Boxed, here and in other rare turns: every call would carry the room for it about.
        Box::pin(self.credentials_of(caller)).await
    }

    async fn credentials_of(&self, caller: &Caller) -> Result<Option<Credentials>, Error> {
        match caller {
            Caller::Anonymous => Ok(None),
            Caller::Token(token) => match &self.shared.auth.tokens {
                Tokens::Simple => simple::credentials(self, token).await.map(Some),
                Tokens::Jwt(jwt) => jwt::credentials(self, jwt, token).await.map(Some),
                Tokens::Disabled => Err(Error::InvalidAuthToken),
            },
            Caller::Certificate(user) => {
                let auth_revision = self.reader.auth_revision();
                Ok(Some(Credentials { user: user.to_string(), auth_revision }))
            }
        }
    }

    /// Refuses what the caller may not do, by the rules that this member knows. Not for
    /// [`Access::LeaseList`], which can take long.
    pub async fn may(&self, caller: &Caller, access: &Access<'_>) -> Result<Pass, Error> {
        if !self.reader.auth_enabled() {
            return Ok(Pass::Open);
        }
        let who = self.credentials(caller).await?;
        self.reader.authorize(who.as_ref(), access)?;
        Ok(pass(who))
    }

    /// As [`Services::may`], before something that needs no second look.
    pub async fn require(&self, caller: &Caller, access: &Access<'_>) -> Result<(), Error> {
        self.may(caller, access).await.map(|_| ())
    }

    /// Reads something long on the pool that judges what it has read; gives it if the rules have not
    /// changed meanwhile. While authorization is off, everything passes.
    pub async fn judged_on_pool<T: Send + 'static>(
        &self,
        caller: &Caller,
        read: impl FnOnce(&Reader, Judge<'_>) -> Result<T, AuthRefusal> + Send + 'static,
    ) -> Result<T, Error> {
        let who = self.credentials(caller).await?;
        self.reader.authorize(who.as_ref(), &Access::Authenticated)?;
        let pass = pass(who.clone());
        let reader = self.reader.clone();
        let read = move || read(&reader, &|access| reader.authorize(who.as_ref(), access));
        let read = self.shared.pool.run(read).await??;
        self.still(pass)?;
        Ok(read)
    }

    /// Whether what was read since may be shown.
    pub fn still(&self, pass: Pass) -> Result<(), Error> {
        match pass {
            Pass::Open if self.reader.auth_enabled() => Err(Error::UserEmpty),
            Pass::At(revision) if self.reader.auth_revision() != revision => {
                Err(Error::AuthOldRevision)
            }
            Pass::Open | Pass::At(_) => Ok(()),
        }
    }
}

/// Authorization may have been turned off since it was asked for.
fn pass(who: Option<Credentials>) -> Pass {
    who.map_or(Pass::Open, |who| Pass::At(who.auth_revision))
}
