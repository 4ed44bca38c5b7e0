# Puts the handlers where chef-client finds them at the start of its next run.
directory '/etc/chef/client.d' do
  mode '0755'
end

cookbook_file '/etc/chef/runlock_handler.rb' do
  source 'runlock_handler.rb'
  mode '0644'
end

cookbook_file '/etc/chef/client.d/runlock.rb' do
  source 'client.d/runlock.rb'
  mode '0644'
end
