//! Keys of the gateway itself, one set for all nodes: what marks its mail, and what proves its reply addresses.
//!
//! Random and wrapped by the master key, so that another master key changes none of them. Not here: what is made with them
//! (`mail::loop_mark`, `core::reply_address`).

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::{Error, MasterKey, ReadSystem, Row, Store, System, sql};
use crate::core::reply_address::{ReplyKey, ReplyKeys, outlived_by};

const MARK: &str = "mark";
const REPLY: &str = "reply";
/// A key makes reply addresses for this long.
const REPLY_KEY_SERVES: SignedDuration = SignedDuration::from_hours(365 * 24);

/// A row of the table.
struct GatewayKey {
    id: u8,
    secret: Zeroizing<[u8; 32]>,
    made_at: Timestamp,
}

impl Store {
    /// Makes the keys that are not there yet; two nodes that start at once make one set.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn make_gateway_keys(&self, now: Timestamp) -> Result<(), Error> {
        let mut system = self.system().await?;
        for purpose in [MARK, REPLY] {
            if system.gateway_keys(purpose).await?.is_empty() {
                system.make_gateway_key(purpose, 1, now).await?;
            }
        }
        system.commit().await
    }

    /// The key of the mark on what we pass on.
    ///
    /// # Errors
    /// `Missing` before it is made; when the database is out of reach; `Corrupt` when the key does not open.
    pub async fn mark_key(&self) -> Result<[u8; 32], Error> {
        let keys = self.system_read().await?.gateway_keys(MARK).await?;
        keys.first().map(|key| *key.secret).ok_or(Error::Missing)
    }

    /// The keys of reply addresses: none before the first is made.
    ///
    /// # Errors
    /// When the database is out of reach; `Corrupt` when a key does not open.
    pub async fn reply_keys(&self) -> Result<ReplyKeys, Error> {
        let keys = self.system_read().await?.gateway_keys(REPLY).await?;
        let key = |key: GatewayKey| ReplyKey { id: key.id, secret: *key.secret, made_at: key.made_at };
        Ok(ReplyKeys::new(keys.into_iter().map(key).collect()))
    }

    /// Makes a new key when the newest has served its time, and destroys those that no address outlives.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn renew_reply_keys(&self, now: Timestamp) -> Result<(), Error> {
        let mut system = self.system().await?;
        let keys = system.gateway_keys(REPLY).await?;
        if let Some(newest) = keys.iter().max_by_key(|key| key.made_at)
            && now.duration_since(newest.made_at) >= REPLY_KEY_SERVES
        {
            // A number that is taken is one of a key that still lives: then there are too many, and it is left at those.
            let next = newest.id.checked_add(1).unwrap_or(1);
            system.make_gateway_key(REPLY, next, now).await?;
            let outlived = now - (REPLY_KEY_SERVES + outlived_by());
            let query = sql("delete from gateway_keys where purpose = $1 and created_at < $2 and id <> $3");
            let newest = i64::from(newest.id);
            system.execute(query.bind(REPLY).bind(outlived).bind(newest)).await?;
        }
        system.commit().await
    }
}

impl ReadSystem {
    async fn gateway_keys(&mut self, purpose: &'static str) -> Result<Vec<GatewayKey>, Error> {
        let query = sql(
            "select id, wrapped, created_at from gateway_keys where purpose = $1 order by created_at, id",
        )
        .bind(purpose);
        let master = self.store().0.vault.master().clone();
        self.fetch_all(query).await?.iter().map(|row| read(&master, purpose, row)).collect()
    }
}

impl System {
    /// Nothing happens when it is there.
    async fn make_gateway_key(&mut self, purpose: &str, id: u8, now: Timestamp) -> Result<(), Error> {
        self.hold_master_key().await?;
        let key = Zeroizing::new(rand::random());
        let wrapped = self.store().0.vault.master().wrap_gateway_key(&place(purpose, id), &key);
        let query =
            sql("insert into gateway_keys (purpose, id, wrapped, created_at) values ($1, $2, $3, $4) \
             on conflict do nothing")
            .bind(purpose)
            .bind(i64::from(id))
            .bind(wrapped)
            .bind(now);
        self.execute(query).await.map(drop)
    }

    /// Wraps each by another master key. Returns how many.
    pub(super) async fn rewrap_gateway_keys(
        &mut self,
        old: &MasterKey,
        new: &MasterKey,
    ) -> Result<u64, Error> {
        let mut count = 0;
        for purpose in [MARK, REPLY] {
            let query =
                sql("select id, wrapped, created_at from gateway_keys where purpose = $1").bind(purpose);
            for row in self.fetch_all(query).await? {
                let key = read(old, purpose, &row)?;
                let wrapped = new.wrap_gateway_key(&place(purpose, key.id), &key.secret);
                let query = sql("update gateway_keys set wrapped = $3 where purpose = $1 and id = $2")
                    .bind(purpose)
                    .bind(i64::from(key.id))
                    .bind(wrapped);
                count += self.execute(query).await?;
            }
        }
        Ok(count)
    }
}

fn place(purpose: &str, id: u8) -> String {
    format!("{purpose}|{id}")
}

fn read(master: &MasterKey, purpose: &str, row: &Row) -> Result<GatewayKey, Error> {
    let id = u8::try_from(row.get::<i64>("id")?)
        .map_err(|_| Error::Corrupt("gateway_keys: a number out of range".into()))?;
    let wrapped: Vec<u8> = row.get("wrapped")?;
    let secret = master.unwrap_gateway_key(&place(purpose, id), &wrapped)?;
    Ok(GatewayKey { id, secret, made_at: row.get("created_at")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{reply_address::Sealed, route::RouteTarget},
        store::{Options, mint, testing::both},
    };

    fn day(number: i64) -> Timestamp {
        Timestamp::now() + SignedDuration::from_hours(number * 24)
    }

    async fn numbers(store: &Store) -> Vec<u8> {
        let mut system = store.system().await.unwrap();
        system.gateway_keys(REPLY).await.unwrap().iter().map(|key| key.id).collect()
    }

    both! {
        async fn every_node_has_the_same_keys_and_another_master_key_changes_none(world) {
            let now = Timestamp::now();
            let (store, target) = (&world.store, RouteTarget::Capture { user: mint() });
            let (first, second) = tokio::join!(store.make_gateway_keys(now), store.make_gateway_keys(now));
            first.and(second).unwrap();
            assert_eq!(numbers(store).await, [1]);
            let mark = store.mark_key().await.unwrap();
            let sealed = Sealed { workspace: mint(), target: &target, domain: "r.example" };
            let (address, _) = store.reply_keys().await.unwrap().mint(sealed, [0; 8], now).unwrap();
            let new = MasterKey::from_bytes([9; 32]);
            assert_eq!(store.rotate_master_key(&new).await.unwrap(), 2);
            store.close().await;
            let options = Options { master_key: new, ..world.options.clone() };
            let store = Store::open(&options).await.unwrap();
            assert_eq!(store.mark_key().await.unwrap(), mark);
            assert!(store.reply_keys().await.unwrap().may_be_ours(&address, now));
            store.close().await;
        }

        async fn a_key_of_reply_addresses_serves_a_year_and_is_kept_until_no_address_needs_it(world) {
            world.store.renew_reply_keys(day(0)).await.unwrap();
            assert!(numbers(&world.store).await.is_empty(), "the first is made when it is needed");
            world.store.make_gateway_keys(day(0)).await.unwrap();
            world.store.renew_reply_keys(day(364)).await.unwrap();
            assert_eq!(numbers(&world.store).await, [1]);
            for (years, expect) in [(1, &[1, 2][..]), (2, &[1, 2, 3]), (3, &[2, 3, 4])] {
                world.store.renew_reply_keys(day(years * 366)).await.unwrap();
                world.store.renew_reply_keys(day(years * 366)).await.unwrap();
                assert_eq!(numbers(&world.store).await, expect);
            }
        }
    }
}
