//! A pool that has lost too many servers to what their traffic shows.

use super::super::standing::Health;
use super::Server;
use crate::config;
use crate::net::PoolIndex;

/// Counts servers as up that their traffic alone has taken out, in pools with too few others.
///
/// Ten servers that each relay what a carrier says, or ten that fail under the load of those taken
/// out before them, are better asked all than five of them or none. A server that does not answer
/// probes stays out: nothing would come back from there.
pub(super) fn relieve(pools: &[config::Pool], servers: &mut [Server]) {
    for (pool, index) in pools.iter().zip(0_u8..) {
        let Some(health) = &pool.health else {
            continue;
        };
        let is_member =
            |server: &&Server| server.pool == Some(PoolIndex(index)) && server.is_enabled;
        let all = servers.iter().filter(is_member).count();
        let up = servers
            .iter()
            .filter(is_member)
            .filter(|server| server.health == Health::Active)
            .count();
        if up * 100 >= all * health.panic_percent as usize {
            continue;
        }
        for server in servers.iter_mut() {
            if is_member(&&*server) && server.ejected {
                server.is_down = false;
                server.takes_calls = true;
            }
        }
    }
}
