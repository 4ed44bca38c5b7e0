# What each of the four nodes does; client.d/four_nodes.rb says when.
shop = ENV.fetch('SHOP', '/srv/shop')

case node.name
when 'mysql'
  execute 'load the database' do
    command ['mysql', '--execute', "source #{shop}/dump.sql"]
    not_if 'runlock wait --until state:db/loaded=1 --timeout 0'
  end
when 'django1', 'django2'
  # On one node alone: the group has one slot, and the next node gets it only when db/schema is set.
  execute 'migrate, unless the other node has' do
    command [
      'runlock', 'exec', '-g', 'shop/migration', '--publish', 'db/schema=42', '--',
      'sh', '-c', "test \"$(runlock state get db/schema)\" = 42 || exec #{shop}/manage.py migrate --no-input"
    ]
  end

  execute 'restart the application' do
    command ['systemctl', 'restart', 'shop']
  end
when 'haproxy'
  execute 'reload the balancer' do
    command ['systemctl', 'reload', 'haproxy']
  end
end
