# Part of client.rb on each of four nodes (docs/waiting.md): what their runs wait for, and what they publish. client.rb
# itself has to name the node_name.
require File.expand_path('../../runlock_handler', __FILE__)

four_nodes = {
  'mysql' => { publishes: { 'db/loaded' => '1' } },
  'django1' => { waits_for: ['state:db/loaded=1'], publishes: { 'app/django1' => '42' } },
  'django2' => { waits_for: ['state:db/loaded=1'], publishes: { 'app/django2' => '42' } },
  'haproxy' => { waits_for: ['state:app/django1=42', 'state:app/django2=42'] },
}

mine = four_nodes.fetch(node_name)
start_handlers << Runlock::WaitFor.new(*mine[:waits_for], timeout: '1h') if mine[:waits_for]
if mine[:publishes]
  publish = Runlock::Publish.new(mine[:publishes])
  report_handlers << publish
  exception_handlers << publish
end
