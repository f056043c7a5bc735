//! The proof of the master key: what shows that a store is sealed under it, and that a node has not slept through its rotation.
//!
//! Not here: what the key wraps (`vault`), and rotating it (`rotation`).

use super::{
    Error, MasterKey, OpenError, Row, Store, System, Tx, sql,
    vault::{Vault, open, seal},
};

/// What the row of table `vault` holds, sealed: anything will do.
const PROOF: &[u8] = b"mailweave";
const PROOF_PLACE: &[u8] = b"vault|proof|1";
/// Reads the proof, so that nobody rotates the master key before the transaction ends. Only a store that is shared has other
/// nodes.
const HELD_PROOF: &str = "select proof from vault where id = 1 for share";

impl MasterKey {
    /// What shows that a store is sealed under this key.
    pub(super) fn proof(&self) -> Vec<u8> {
        seal(self.secret(), PROOF_PLACE, PROOF)
    }
}

impl Vault {
    /// Whether what table `vault` holds was written under this node's master key.
    fn is_proven_by(&self, proof: &Row) -> Result<bool, Error> {
        let sealed: Vec<u8> = proof.get("proof")?;
        Ok(open(self.master().secret(), PROOF_PLACE, &sealed).is_some_and(|plain| plain == PROOF))
    }

    /// Refuses to go on under a master key that was rotated away: what it wraps opens for nobody any more. What had to wait goes
    /// on once the node is started anew.
    fn require_proven(&self, proof: &Row) -> Result<(), Error> {
        match self.is_proven_by(proof)? {
            true => Ok(()),
            false => Err(Error::refused("the store has another master key by now: start this node anew")),
        }
    }
}

impl Store {
    /// Refuses another master key than the one the store was made with, before anything is sealed under it.
    pub(super) async fn prove_master_key(&self) -> Result<(), OpenError> {
        let proven = self.read_or_write_proof().await.map_err(|error| match error {
            Error::Unavailable(source) => OpenError::Database(source),
            other => OpenError::Database(sqlx::Error::Protocol(other.to_string())),
        })?;
        proven.then_some(()).ok_or(OpenError::MasterKey)
    }

    async fn read_or_write_proof(&self) -> Result<bool, Error> {
        let mut system = self.system().await?;
        let proof = self.0.vault.master().proof();
        let insert = sql("insert into vault (id, proof) values (1, $1) on conflict do nothing").bind(proof);
        system.execute(insert).await?;
        let row = system.fetch_one(sql("select proof from vault where id = 1")).await?;
        system.commit().await?;
        self.0.vault.is_proven_by(&row)
    }
}

impl System {
    /// Keeps the master key from being rotated before this transaction ends, and refuses to go on under a former one.
    pub(super) async fn hold_master_key(&mut self) -> Result<(), Error> {
        if self.store().is_shared() {
            let proof = self.fetch_one(sql(HELD_PROOF)).await?;
            self.store().0.vault.require_proven(&proof)?;
        }
        Ok(())
    }
}

impl Tx {
    /// Keeps the master key from being rotated before this transaction ends, and refuses to go on under a former one.
    pub(super) async fn hold_master_key(&mut self) -> Result<(), Error> {
        if self.store().is_shared() {
            let proof = self.fetch_one(sql(HELD_PROOF)).await?;
            self.store().0.vault.require_proven(&proof)?;
        }
        Ok(())
    }
}
