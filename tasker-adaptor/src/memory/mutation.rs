//! Guards that can be taken out, to prove that the conformance suite notices.

/// A guard of the storage contract that a [`MemoryStorage`](super::MemoryStorage) can be built without.
///
/// Only `MemoryStorage::with_mutation` (feature `conformance`) takes one; a plain store has all guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "conformance"),
    allow(
        dead_code,
        unreachable_pub,
        clippy::enum_variant_names,
        reason = "only the feature `conformance` builds stores without a guard"
    )
)]
pub enum Mutation {
    /// A turn is not recognised by its number.
    NoTurnNumber,
    /// Claim and reload keep a frame's epoch.
    NoEpochOnLoad,
    /// A commit does not ask whether its worker is live.
    NoWorkerGuardOnCommit,
    /// A claim does not ask whether its worker is live.
    NoWorkerGuardOnClaim,
    /// Who settles a child reads its parent's status before it takes the lock.
    NoWakeUnderLock,
    /// A suspending turn does not look for unread children.
    NoUnreadCheck,
    /// A commit does not check what it delivers.
    NoDeliveryGuard,
    /// A run is folded whatever is still open in it.
    NoFoldGuard,
}

impl Mutation {
    /// All of them.
    #[cfg(feature = "conformance")]
    pub const ALL: &'static [Self] = &[
        Self::NoTurnNumber,
        Self::NoEpochOnLoad,
        Self::NoWorkerGuardOnCommit,
        Self::NoWorkerGuardOnClaim,
        Self::NoWakeUnderLock,
        Self::NoUnreadCheck,
        Self::NoDeliveryGuard,
        Self::NoFoldGuard,
    ];
}
