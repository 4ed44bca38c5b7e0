# Part of client.rb: every run of this chef-client waits for a slot of its group.
require File.expand_path('../../runlock_handler', __FILE__)

runlock_group = ENV.fetch('RUNLOCK_GROUP', 'prod/web')
runlock_wait = ENV.fetch('RUNLOCK_WAIT', '30m')

start_handlers << Runlock::Acquire.new(runlock_group, '--wait', runlock_wait)
report_handlers << Runlock::Release.new(runlock_group)
exception_handlers << Runlock::Release.new(runlock_group)
