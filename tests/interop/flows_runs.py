"""Flows of the other groups again, now INVITE with a transaction: PRACK and UPDATE before the answer,
REFER with Replaces, NOTIFY before the 200, Kamailio behind viaduct, two viaducts in series, NATs,
baresip, two workers, clients and farm of two families.
"""

import field_runs
import kamailio_runs
import nat_runs
import phone_runs
import ringing_runs
import topology_runs
from lab import Lab, main

Lab.stateful = True
PICKED = {
    field_runs: ("early-media", "transfer", "pickup", "early-notify", "hairpin-2arm", "carrier-route-ipv6-2arm", "carrier-literal-ipv4-1arm"),
    kamailio_runs: ("kamailio-2arm", "kamailio-sipp", "series-ipv4"),
    nat_runs: ("home-2arm", "moved-server-bye", "advertised-1arm", "second-port-2arm"),
    phone_runs: ("phone-nat-2arm", "transfer-nat"),
    ringing_runs: ("bye-after-reload", "bye-after-restart", "ringing-rotation"),
    topology_runs: ("workers-2arm", "ipv6-to-ipv4", "priorities"),
}
RUNS = {name: module.RUNS[name] for module, names in PICKED.items() for name in names}

if __name__ == "__main__":
    raise SystemExit(main(RUNS))
