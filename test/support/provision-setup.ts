// Once before all tests that need real programs: finds or fetches them, and tells the workers where they are.
import { provisionAll } from './provision.ts';

export async function setup(): Promise<void> {
  Object.assign(process.env, await provisionAll());
}
