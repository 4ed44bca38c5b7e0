/** For `status`: the health gates of services, for each node that offers them. Reads only. */
import { FIRST_CONTACT } from '../consul/consul.ts';
import type { Consul, Right } from '../consul/consul.ts';
import { decideGate, limitOf } from '../gate/decide.ts';
import type { Bounds, Verdict } from '../gate/decide.ts';
import { describeVerdict } from '../gate/describe.ts';
import type { Instance } from '../gate/instances.ts';
import { AUTO, peersOf, readInstances } from '../gate/read.ts';
import type { GateView, ServiceView } from './report.ts';

/** Which services, and how many of their instances may be offline. */
export interface ServiceScope {
  /** Names; `auto` means the services of the configured agent. */
  readonly services: readonly string[];
  readonly bounds: Bounds;
}

/** One view for each service, by name. If the token may not see a service, that is a problem in its view. */
export async function statusServices(
  consul: Consul,
  { services, bounds }: ServiceScope,
  signal: AbortSignal,
): Promise<readonly ServiceView[]> {
  const limits = { ...FIRST_CONTACT, signal };
  const named = services.filter((name) => name !== AUTO);
  const own = named.length < services.length ? await consul.agentServices(limits) : [];
  const names = [...new Set([...named, ...own.map(({ service }) => service)])].sort();
  return Promise.all(
    names.map(async (service) => {
      const { value } = await readInstances(consul, service, limits);
      const hidden = await whatIsHidden(consul, { service, instances: value }, signal);
      return { ...viewService(service, value, bounds), ...(hidden !== undefined && { problem: hidden }) };
    }),
  );
}

async function whatIsHidden(
  consul: Consul,
  { service, instances }: { service: string; instances: readonly Instance[] },
  signal: AbortSignal,
): Promise<string | undefined> {
  const [first] = instances;
  const ofService: Right = { resource: 'service', name: service, access: 'read' };
  const asked = [ofService, peersOf(first?.node ?? 'any')];
  const [seesService = true, seesNodes = true] = await consul.may(asked, { ...FIRST_CONTACT, signal });
  if (seesService && seesNodes) return undefined;
  const rule = seesService
    ? 'node_prefix "" { policy = "read" }'
    : `service "${service}" { policy = "read" }`;
  return `this token may not see all instances; it needs the rule: ${rule}`;
}

/** The gate's verdict for each node that offers the service. Pure. */
export function viewService(service: string, instances: readonly Instance[], bounds: Bounds): ServiceView {
  const nodes = [...new Set(instances.map(({ node }) => node))];
  const verdicts = nodes.map((node) => ({
    node,
    verdict: decideGate({ ...bounds, service, instances, node }),
  }));
  const offline = instances.flatMap(({ node, serviceId: id, state, why = state }) =>
    state === 'offline' ? [{ node, id, why }] : [],
  );
  const named = (isOpen: boolean) =>
    verdicts.flatMap(({ node, verdict: { open } }) => (open === isOpen ? [node] : []));
  const nowhere = decideGate({ ...bounds, service, instances, node: '' });
  const gates =
    nodes.length > 0
      ? toGates(verdicts)
      : [{ open: false, nodes: [], why: describeVerdict(nowhere, ONE_OF_THEM) }];
  return {
    service,
    total: instances.length,
    limit: limitOf(bounds.maxOffline, instances.length),
    ...(bounds.minHealthy !== undefined && { minHealthy: bounds.minHealthy }),
    offline,
    openFor: named(true),
    closedFor: named(false),
    gates,
  };
}

/** Groups nodes whose verdicts differ only in the node's name. Closed ones come first. */
function toGates(verdicts: readonly { node: string; verdict: Verdict }[]): GateView[] {
  const alike = new Map<string, { node: string; verdict: Verdict }[]>();
  for (const each of verdicts) {
    const text = describeVerdict(each.verdict, ONE_OF_THEM);
    alike.set(text, [...(alike.get(text) ?? []), each]);
  }
  const gates = [...alike.values()].flatMap((all): GateView[] => {
    const [first, ...others] = all;
    if (!first) return [];
    const { node, verdict } = first;
    const why = describeVerdict(verdict, others.length === 0 ? node : ONE_OF_THEM);
    return [{ open: verdict.open, nodes: all.map((each) => each.node), why }];
  });
  return gates.sort((a, b) => Number(a.open) - Number(b.open));
}

const ONE_OF_THEM = 'any of these nodes';
